"""Compatibility endpoints: other projects' protocols, one file each, translated to plaudit's own requests and back."""
