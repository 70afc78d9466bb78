import sys
from setuptools import setup
from mypyc.build import mypycify
MODS=open(sys.argv.pop(1)).read().split()
setup(name="x",packages=[],ext_modules=mypycify(["--config-file=/dev/null","--ignore-missing-imports","--python-version=3.11",*MODS],opt_level="2",debug_level="0",multi_file=False))
