"""How stages run: recipe, run folder, files and records that stages share, and the command line."""
