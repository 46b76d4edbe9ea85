"""A process that fetches a model, says so, and holds it until its standard input ends: ``cache_user.py ARTIFACT``."""

import sys

from alignment.types import Artifact
from infra.artifacts import fetch_tree

print(fetch_tree(Artifact.model_validate_json(sys.argv[1])), flush=True)
sys.stdin.read()
