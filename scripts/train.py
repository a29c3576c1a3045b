"""`hf-llm train` as a script, for `accelerate launch scripts/train.py model=gpt2 …` and for debuggers."""

import sys

from hf_llm.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
