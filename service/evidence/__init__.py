"""Evidence about a group of completions that needs neither given tests nor a model: what the prompt itself says.

- `examples` reads the examples of a prompt, as calls with expected values or as stdin and stdout.
- Plain Python and bounded: the API process reads untrusted prompts here, and training reads the same ones offline.
"""
