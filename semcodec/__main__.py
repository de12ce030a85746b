"""``python -m semcodec``."""

from semcodec.cli import main

if __name__ == "__main__":
    main(prog_name="semcodec")
