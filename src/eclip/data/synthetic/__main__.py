"""One drawing process of the workshop; its order is the command line."""

import sys

from eclip.data.synthetic.workshop import main

main(*sys.argv[1:])
