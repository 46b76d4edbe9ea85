"""Model folders that a test may damage, and how."""

import json

from alignment.models import Pretrained
from infra.models import adopt_model


def adopt(store, folder, kind="policy", **source):
    return adopt_model(store, Pretrained(model=str(folder), **source), kind)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def save_sharded(folder):
    """The one weight file cut into two, as large models come."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def own_code(folder):
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
