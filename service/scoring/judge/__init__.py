"""Generative reward models and judges: a language model behind an OpenAI-compatible server is asked for scores.

`spec` is what `reward_model.json` says about one, `client` asks the server, `engine` is the `Engine` of such a model.
"""
