"""``python -m ess_can``."""

from ess_can.cli.main import main

if __name__ == "__main__":
    main()
