"""`python -m tailrace` is the command `tailrace`."""

from tailrace.cli import main

# Guarded, because the trainer's child process imports this module again.
if __name__ == "__main__":
    main()
