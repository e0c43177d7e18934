"""`python -m dendrofx`: the command."""

from dendrofx.command.main import main

if __name__ == "__main__":
    main()
