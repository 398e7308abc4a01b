"""`python -P -m console` is `fedfleet`, without a look at the working folder's modules."""

from console.main import main

if __name__ == "__main__":
    main()
