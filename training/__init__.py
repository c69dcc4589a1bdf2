"""Training of reward models: data in, a checkpoint folder for the service out (docs/training.md)."""
