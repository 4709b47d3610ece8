"""`python -m rainmer VERB ...`, where the console command `rainmer` is not on the path."""

from __future__ import annotations

from rainmer.commands import main

if __name__ == "__main__":
    main()
