"""Programs from models: sources of completions, and the stage `sample`."""
