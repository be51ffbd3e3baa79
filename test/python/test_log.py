"""What a `logger_class` finds in the logger of an app's Python that has no gunicorn."""

import logging
import logging.handlers
import unittest
from types import SimpleNamespace

from nunicorn_worker.log import Logger

CONFIG = {
    "loglevel": "warning",
    "capture_output": False,
    "log_format": "text",
    "log_split": False,
    "errorlog": "-",
    "accesslog": None,
    "syslog": True,
    "syslog_addr": "udp://127.0.0.1:9",
    "syslog_facility": "user",
    "syslog_prefix": None,
    "disable_redirect_access_to_syslog": True,
    "proc_name": "mine",
    "logconfig": None,
    "logconfig_dict": {},
    "logconfig_json": None,
}


class Own(Logger):
    def setup(self, cfg):
        super().setup(cfg)
        fmt = logging.Formatter("own %(message)s")
        self._set_handler(log=self.error_log, output=cfg.errorlog, fmt=fmt)
        self._set_handler(log=self.access_log, output=cfg.accesslog, fmt=fmt)


class TestLogger(unittest.TestCase):
    def tearDown(self):
        for name in ("gunicorn.error", "gunicorn.access"):
            for handler in list(logging.getLogger(name).handlers):
                logging.getLogger(name).removeHandler(handler)
                handler.close()

    def test_a_subclass_replaces_the_handler_as_with_gunicorn(self):
        logger = Own(SimpleNamespace(**CONFIG))
        for _ in range(2):
            syslog, own = logger.error_log.handlers
            self.assertIsInstance(syslog, logging.handlers.SysLogHandler)
            self.assertEqual(own.formatter._fmt, "own %(message)s")
            self.assertIs(logger._get_gunicorn_handler(logger.error_log), syslog)
            self.assertEqual(logger.access_log.handlers, [])
            logger.setup(SimpleNamespace(**CONFIG))

    def test_it_knows_its_level_and_the_user_of_a_request(self):
        logger = Logger(SimpleNamespace(**CONFIG))
        self.assertEqual(logger.loglevel, logging.WARNING)
        self.assertEqual(logger._get_user({"HTTP_AUTHORIZATION": "Basic Ym9iOnB3"}), "bob")
        self.assertIsNone(logger._get_user({}))


if __name__ == "__main__":
    unittest.main()
