"""The artifact store: find or make.

Every artifact has two addresses. The object lives under its recipe, ``{store}/objects/{kind}/{recipe}/``; the recipe is
a digest of what was asked for and of nothing else, so equal work is found and not redone. The name is readable,
``{store}/runs/{run}/round-003/groups``, and points to an object. A store is a folder, ``memory://name`` (this process
alone, for tests) or ``s3://bucket/prefix``, with endpoint and credentials from the environment.

All of it is immutable and created once, except the pointer to a run's promoted policy, which moves by
compare-and-swap. The parts: ``recipes``, ``objects`` (records), ``rows``, ``trees``, ``runs``, and below them
``storage`` (bytes) and ``conditional`` (the two writes that everything stands on). ``verify``, ``lineage`` and
``sweep`` look at a store as a whole.
"""

from infra.objects import ObjectRecord, find, read_record, record_of, store_of
from infra.recipes import asked, recipe_of
from infra.rows import Shard, commit_rows, commit_shard, commit_shards, find_shard, read_rows, read_shard
from infra.runs import Promotion, claim_run, list_runs, name, named, promote, promoted, read_config
from infra.storage import put_once, read_bytes
from infra.store_probe import check_store
from infra.stored_files import StoredFile
from infra.trees import commit_tree, fetch_tree

__all__ = [
    "ObjectRecord",
    "Promotion",
    "Shard",
    "StoredFile",
    "asked",
    "check_store",
    "claim_run",
    "commit_rows",
    "commit_shard",
    "commit_shards",
    "commit_tree",
    "fetch_tree",
    "find",
    "find_shard",
    "list_runs",
    "name",
    "named",
    "promote",
    "promoted",
    "put_once",
    "read_bytes",
    "read_config",
    "read_record",
    "read_rows",
    "read_shard",
    "recipe_of",
    "record_of",
    "store_of",
]
