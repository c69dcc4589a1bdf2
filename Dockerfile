# One file, three images: `docker build --target api|scorer|executor .`
#
#   api       talks HTTP and Redis. No torch, no weights, no compiler; not root.
#   scorer    holds the weights and the GPU. Not root.
#   executor  runs untrusted programs. No torch, no weights, no key of the API. Isolation level `strong` needs root
#             and the flags that docker-compose.yml gives it (docs/sandbox.md says what each is for); the programs
#             themselves never run as root.
#
# BASE         any Debian with python3 >= 3.11 and python3-venv; the official slim Python image by default. It does for a
#              GPU too: PyPI's torch wheel for Linux brings its own CUDA libraries, and the NVIDIA container runtime
#              brings the driver. A CUDA base image works as well, target by target.
# PIP_ARGS     more words for `pip install`. For a scorer without a GPU, name PyTorch's CPU wheel index here
#              (--extra-index-url ...): the image becomes several GB smaller.
# TOOLCHAINS   Debian packages of the languages that the executor offers beside Python; `python3 -m sandbox.language_specs` prints
#              those of all languages. TypeScript is npm's, so it is not among them (.ci/toolchains has it).
ARG BASE=python:3.11-slim-bookworm

# --- both packages, built once -----------------------------------------------------------------------------------------
FROM ${BASE} AS wheel
ARG PIP_ARGS=""
WORKDIR /src
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir ${PIP_ARGS} hatchling hatch-vcs
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
# What each process installs, by its own extra: `pip install -r` before the code is there, so that a change of code
# does not install torch again. The client (`plaudit>=...`) is not among it: it is built here, too. No .git is here, so
# the version is the fallback of pyproject.toml; SETUPTOOLS_SCM_PRETEND_VERSION sets another one.
RUN for extra in api scorer executor; do /build/bin/python -c "import sys, tomllib; \
p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
own = [line for line in p['dependencies'] if not line.startswith('plaudit>=')]; \
print(*own, *p['optional-dependencies'][sys.argv[1]], sep='\n')" $extra > /src/$extra.txt; done
COPY sandbox sandbox
COPY service service
COPY training training
COPY client client
# Without models/: the weights go into the scorer's image alone.
RUN /build/bin/hatchling build --target wheel --directory /wheels \
 && cd client && /build/bin/hatchling build --target wheel --directory /wheels

# --- what all three share ----------------------------------------------------------------------------------------------
FROM ${BASE} AS common
ENV PATH=/opt/plaudit/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN groupadd --system --gid 10001 plaudit \
 && useradd --system --uid 10001 --gid 10001 --home-dir /opt/plaudit --shell /usr/sbin/nologin plaudit \
 && mkdir -p /opt/plaudit && python3 -m venv /opt/plaudit/venv
WORKDIR /opt/plaudit

# --- api ---------------------------------------------------------------------------------------------------------------
FROM common AS api
ARG PIP_ARGS=""
COPY --from=wheel /src/constraints.txt /src/api.txt /tmp/
RUN pip install --no-cache-dir ${PIP_ARGS} -c /tmp/constraints.txt -r /tmp/api.txt
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps /tmp/wheels/*.whl && rm -rf /tmp/wheels
# All interfaces of the container; without a key the process refuses that, and says so.
ENV PLAUDIT_HOST=0.0.0.0 PLAUDIT_PORT=8000
USER plaudit
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["plaudit", "serve"]

# --- scorer ------------------------------------------------------------------------------------------------------------
FROM common AS scorer
ARG PIP_ARGS=""
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=wheel /src/constraints.txt /src/scorer.txt /tmp/
RUN pip install --no-cache-dir ${PIP_ARGS} -c /tmp/constraints.txt -r /tmp/scorer.txt
# Owned, not just copied: safetensors writes its files for their owner alone.
COPY --chown=plaudit:plaudit models models
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps /tmp/wheels/*.whl && rm -rf /tmp/wheels
# Weights come from this image or from a mount, never from a hub while requests wait.
ENV PLAUDIT_MODEL=default=/opt/plaudit/models/plaudit-mini PLAUDIT_METRICS_PORT=9100 HF_HUB_OFFLINE=1
USER plaudit
EXPOSE 9100
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/metrics', timeout=3)"]
ENTRYPOINT ["plaudit", "worker", "score"]

# --- executor ----------------------------------------------------------------------------------------------------------
FROM common AS executor
ARG PIP_ARGS=""
ARG TOOLCHAINS="g++"
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap libseccomp2 ${TOOLCHAINS} \
 && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /src/constraints.txt /src/executor.txt /tmp/
RUN pip install --no-cache-dir ${PIP_ARGS} -c /tmp/constraints.txt -r /tmp/executor.txt
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps /tmp/wheels/*.whl && rm -rf /tmp/wheels
ENV PLAUDIT_METRICS_PORT=9100
# Root, on purpose: the launcher makes namespaces and cgroups, then gives each program an unprivileged uid of its own.
USER root
EXPOSE 9100
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/metrics', timeout=3)"]
ENTRYPOINT ["plaudit", "worker", "execute"]
