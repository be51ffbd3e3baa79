"""A configuration file for Gunicorn and nunicorn alike: `nunicorn -c examples/gunicorn.conf.py`.

It is Python, and each variable that is named like a setting sets it. The command line wins over it.
"""

import os

wsgi_app = "streaming:application"
chdir = os.path.dirname(os.path.abspath(__file__))

workers = 2
threads = 4
timeout = 60

accesslog = "-"
proc_name = "streaming"
