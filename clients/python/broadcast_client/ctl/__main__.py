import sys

from broadcast_client.ctl import main

if __name__ == "__main__":
    sys.exit(main())
