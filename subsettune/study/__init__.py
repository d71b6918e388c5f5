"""Studies: what is searched, the search itself, the test of what it found, and their records."""

DEFAULT_STORAGE = "runs"  # folder that holds studies where none is named
MANIFEST = "manifest.json"  # in the folder of a study: there once it has begun
