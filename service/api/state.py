"""What one API process has open: made by the application's lifespan, read by routes and compatibility endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from service.api.dispatch.fleet import Fleet
from service.api.dispatch.shards import Shards
from service.api.handlers.replays import Replays
from service.api.handlers.reward_service import RewardService
from service.api.handlers.validation import RequestValidator
from service.api.stores.activity import Activity
from service.api.stores.durable_requests import ShardedDurableRequests
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class AppState:
    settings: Settings
    shards: Shards
    fleet: Fleet
    validator: RequestValidator
    reward_service: RewardService
    durable_requests: ShardedDurableRequests
    replays: Replays
    activity: Activity


def state_of(request: Request) -> AppState:
    """The state of the application that answers this request."""
    return cast(AppState, request.app.state.plaudit)
