"""Other people's protocols, one file a client: each translates to the desk's requests and back, and nothing more."""
