"""`python -m hf_llm VERB …` is `hf-llm VERB …`."""

from hf_llm.cli import main

if __name__ == "__main__":
    main()
