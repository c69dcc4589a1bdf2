"""The report on held-out problems, its plots, the published folder, and the check against published numbers."""
