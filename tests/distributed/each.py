"""Call a verb with each of a list of overrides, one after the other in the same processes: imports take seconds.

[torchrun …] each.py CALLS.json RESULTS.json     CALLS: [[verb, [override, …]], …]
"""

import json
import os
import sys
from pathlib import Path

import hf_llm


def main(calls, results):
    found = []
    for verb, overrides in json.loads(Path(calls).read_text()):
        if verb == "train":
            run = hf_llm.train(hf_llm.compose(*overrides))
            history = run.trainer.state.log_history
            found.append({name: [e[name] for e in history if name in e] for name in ("loss", "grad_norm")})
        else:
            found.append(getattr(hf_llm, verb)(hf_llm.compose(verb, *overrides)))
    if int(os.environ.get("RANK", 0)) == 0:
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
