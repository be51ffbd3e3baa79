"""The names of apps, in gunicorn's forms and a few more, and what is said of those that lead nowhere."""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

from nunicorn_worker.app import AppLoadError, advice_on, load_app, prepare_path

MODULE = """
    import functools

    class Site:
        def __init__(self, name='site'):
            self.name = name

        def __call__(self, environ, start_response):
            return [b'']

        @classmethod
        def make(cls, name='made'):
            return cls(name)

        wrong = 1

    class Asgi:
        async def __call__(self, scope, receive, send):
            pass

    async def asgi(scope, receive, send):
        pass

    def application(environ, start_response):
        return [b'default']

    def app(environ, start_response):
        return [b'app']

    def create_app(*args, **kwargs):
        site = Site('created')
        site.args, site.kwargs = args, kwargs
        return site

    def strict(name):
        return Site(name)

    def broken():
        len(5)

    def none():
        return None

    def exits():
        raise SystemExit(5)

    bound = Asgi().__call__
    partial = functools.partial(strict, name='partial')
    site = Site()
    nothing = None
    number = 5
"""


class Advice(unittest.TestCase):
    def setUp(self):
        environ = mock.patch.dict(os.environ)
        environ.start()
        self.addCleanup(environ.stop)
        os.environ.pop("VIRTUAL_ENV", None)

    def test_without_a_virtual_environment_a_missing_module_may_be_in_one(self):
        missing = ModuleNotFoundError("No module named 'django'", name="django")
        with mock.patch("sys.prefix", sys.base_prefix):
            advice = advice_on(missing, "shop.wsgi")
            self.assertIn("No module named 'django': the Python is %s." % sys.executable, advice)
            self.assertIn("--python PATH", advice)
            self.assertIsNone(advice_on(ImportError("cannot import name"), "shop.wsgi"))
            with tempfile.TemporaryDirectory() as folder, mock.patch("os.getcwd", lambda: folder):
                python = os.path.join(folder, "venv", "bin", "python")
                os.makedirs(os.path.dirname(python))
                open(python, "w").close()
                self.assertTrue(advice_on(missing, "shop.wsgi").endswith("--python %s" % python))
        with mock.patch("sys.prefix", sys.base_prefix + "/.venv"):
            self.assertIsNone(advice_on(missing, "shop.wsgi"))

    def test_a_virtual_environment_whose_python_cannot_be_run_is_named(self):
        missing = ModuleNotFoundError("No module named 'django'", name="django")
        with tempfile.TemporaryDirectory() as folder, mock.patch("sys.prefix", sys.base_prefix):
            python = os.path.join(folder, ".venv", "bin", "python")
            os.makedirs(os.path.dirname(python))
            os.symlink("/nowhere/python3", python)
            with mock.patch("os.getcwd", lambda: folder):
                self.assertIn("since %s, that of the virtual environment, cannot be run" % python, advice_on(missing, "shop.wsgi"))
            os.environ["VIRTUAL_ENV"] = os.path.join(folder, "gone")
            self.assertIn("since %s/gone/bin/python, that of" % folder, advice_on(missing, "shop.wsgi"))
            os.environ["VIRTUAL_ENV"] = os.path.join(folder, ".venv")
            os.unlink(python)
            os.symlink(sys.executable, python)
            self.assertIn("activate it", advice_on(missing, "shop.wsgi"))

    def test_the_python_may_be_one_that_the_user_may_not_read(self):
        missing = ModuleNotFoundError("No module named 'subprocess'", name="subprocess")
        with mock.patch("os.access", lambda path, mode: path != os.path.dirname(os.__file__)):
            advice = advice_on(missing, "shop.wsgi")
        self.assertIn("user %d may not read %s," % (os.getuid(), os.path.dirname(os.__file__)), advice)

    def test_the_folder_may_be_wrong_where_the_app_itself_or_its_settings_are_missing(self):
        for name in ("shop", "shop.wsgi"):
            advice = advice_on(ModuleNotFoundError("No module named %r" % name, name=name), "shop.wsgi:application")
            self.assertIn("the start names shop.wsgi, which is looked for in %s. " % os.getcwd(), advice)
            self.assertIn("--chdir DIR", advice)
        with tempfile.TemporaryDirectory() as folder:
            self.addCleanup(os.chdir, os.getcwd())
            os.chdir(folder)
            os.mkdir("shop")
            open("shop/wsgi.py", "w").close()
            advice = advice_on(ModuleNotFoundError("No module named 'shp'", name="shp"), "shp.wsgi")
            self.assertIn("which is looked for in %s (shop.wsgi is there). Correct" % os.getcwd(), advice)
            os.chdir("/")
        missing = ModuleNotFoundError("No module named 'shop.setings'", name="shop.setings")
        with mock.patch.dict(os.environ, {"DJANGO_SETTINGS_MODULE": "shop.setings"}):
            self.assertIn("DJANGO_SETTINGS_MODULE names shop.setings", advice_on(missing, "shop.wsgi"))

    def test_a_dot_may_stand_in_the_place_of_the_colon(self):
        missing = ModuleNotFoundError("No module named 'shop.application'; 'shop' is not a package", name="shop.application")
        with mock.patch.dict(sys.modules, {"shop": mock.Mock(application=load_app)}):
            self.assertEqual(advice_on(missing, "shop.application"), "%s: did you mean 'shop:application'?" % missing)


class Loading(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.addCleanup(os.chdir, os.getcwd())
        self.addCleanup(sys.path.__setitem__, slice(None), list(sys.path))
        known = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - known])
        self.write("shop.py", MODULE)
        sys.path.insert(0, self.folder)
        os.chdir(self.folder)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))

    def refused(self, uri, message):
        with self.assertRaises(AppLoadError) as caught:
            load_app(uri)
        self.assertEqual(str(caught.exception), message)


class TestLoadApp(Loading):
    def test_an_asgi_application_is_refused(self):
        for uri in ("shop:asgi", "shop:Asgi()", "shop:bound"):
            with self.subTest(uri), self.assertRaisesRegex(AppLoadError, "is a coroutine function, as ASGI app.* a2wsgi"):
                load_app(uri)
        self.assertIsInstance(load_app("shop:Site()"), load_app("shop:Site"))

    def test_a_factory_that_is_not_called_is_refused(self):
        self.refused(
            "shop:strict",
            "Application object must take two arguments, environ and start_response: 'strict' takes 1."
            " A function that makes the application is named with parentheses: 'shop:strict()'.",
        )
        self.write("flat.py", "def app(*args): return []")
        self.assertEqual(load_app("flat:app")(None, None), [])

    def test_a_module_alone_means_application(self):
        self.assertEqual(load_app("shop")(None, None), [b"default"])

    def test_an_empty_name_means_application(self):
        self.assertEqual(load_app("shop:")(None, None), [b"default"])

    def test_a_name(self):
        self.assertEqual(load_app("shop:app")(None, None), [b"app"])
        self.assertEqual(load_app("shop:site").name, "site")

    def test_a_module_in_a_package(self):
        self.write("package/__init__.py", "")
        self.write("package/inner.py", "def app(environ, start_response): return [b'inner']")
        self.assertEqual(load_app("package.inner:app")(None, None), [b"inner"])

    def test_an_attribute_of_an_object(self):
        self.assertEqual(load_app("shop:site.__call__")(None, None), [b""])

    def test_a_call_without_arguments(self):
        self.assertEqual(load_app("shop:create_app()").args, ())

    def test_a_call_with_literal_arguments(self):
        app = load_app("shop:create_app('a', 1, [2.5, None], -3, debug=True, db={'x': (1,)})")
        self.assertEqual(app.args, ("a", 1, [2.5, None], -3))
        self.assertEqual(app.kwargs, {"debug": True, "db": {"x": (1,)}})

    def test_a_call_with_a_colon_in_an_argument(self):
        self.assertEqual(load_app("shop:create_app('sqlite:///x')").args, ("sqlite:///x",))

    def test_a_call_of_an_attribute(self):
        self.assertEqual(load_app("shop:Site.make('x')").name, "x")

    def test_a_class_and_a_partial_as_factories(self):
        self.assertEqual(load_app("shop:Site('x')").name, "x")
        self.assertEqual(load_app("shop:partial()").name, "partial")


class TestRefused(Loading):
    def test_a_missing_attribute(self):
        self.refused("shop:missing", "Failed to find attribute 'missing' in 'shop'. Did you mean 'shop:application'?")
        self.refused("shop:missing()", "Failed to find attribute 'missing' in 'shop'. Did you mean 'shop:application'?")
        self.refused("shop:site.missing", "Failed to find attribute 'missing' in 'shop'. Did you mean 'shop:application'?")

    def test_a_module_without_application(self):
        self.write("empty.py", "")
        self.refused("empty", "Failed to find attribute 'application' in 'empty'.")

    def test_what_flask_or_django_have_further_on_is_named(self):
        self.write("flasky.py", "def app(environ, start_response): return []")
        self.refused("flasky", "Failed to find attribute 'application' in 'flasky'. Did you mean 'flasky:app'?")
        self.refused("flasky:application", "Failed to find attribute 'application' in 'flasky'. Did you mean 'flasky:app'?")
        self.refused("flasky:ap", "Failed to find attribute 'ap' in 'flasky'. Did you mean 'flasky:app'?")
        self.write("factory.py", "def create_app(): return None")
        self.refused("factory", "Failed to find attribute 'application' in 'factory'. Did you mean 'factory:create_app()'?")
        self.write("project/__init__.py", "")
        self.refused("project", "Failed to find attribute 'application' in 'project'.")
        self.write("project/wsgi.py", "")
        self.refused("project", "Failed to find attribute 'application' in 'project'. Did you mean 'project.wsgi'?")
        self.refused("project:application", "Failed to find attribute 'application' in 'project'. Did you mean 'project.wsgi'?")

    def test_what_is_no_expression(self):
        for name in ("1app", "a b", "app(", "app)", "a=1", "import os"):
            with self.subTest(name=name):
                self.refused(f"shop:{name}", f"Failed to parse {name!r} as an attribute name or function call.")

    def test_what_is_neither_name_nor_call(self):
        for name in ("5", "'app'", "[app]", "app or site", "lambda: 1", "apps['x']", "make()()", "(1).real", "a().b"):
            with self.subTest(name=name):
                self.refused(f"shop:{name}", f"Failed to parse {name!r} as an attribute name or function call.")

    def test_arguments_that_are_no_literals(self):
        for call in ("create_app(name)", "create_app(x=len)", "create_app(1 + x)", "create_app(f())", "create_app(*x)"):
            with self.subTest(call=call):
                self.refused(f"shop:{call}", f"Failed to parse arguments as literal values: {call!r}")

    def test_the_wrong_arguments(self):
        for call, message in (
            ("strict()", "strict() missing 1 required positional argument: 'name'"),
            ("strict('a', 'b')", "strict() takes 1 positional argument but 2 were given"),
            ("strict(other=1)", "strict() got an unexpected keyword argument 'other'"),
            ("number()", "'int' object is not callable"),
        ):
            with self.subTest(call=call):
                self.refused(f"shop:{call}", f"TypeError: {message}")

    def test_a_type_error_within_the_factory_passes_through(self):
        with self.assertRaises(TypeError) as caught:
            load_app("shop:broken()")
        self.assertNotIsInstance(caught.exception, AppLoadError)

    def test_none(self):
        self.refused("shop:nothing", "Failed to find application object: 'nothing'")
        self.refused("shop:none()", "Failed to find application object: 'none()'")

    def test_not_callable(self):
        self.refused("shop:number", "Application object must be callable: 'number' is int.")

    def test_the_name_of_a_file(self):
        self.refused("shop.py", "Failed to find application, did you mean 'shop:application'?")
        self.refused("shop.py:app", "Failed to find application, did you mean 'shop:app'?")


class TestImport(Loading):
    def test_what_the_import_raises_passes_through(self):
        for source, kind in (
            ("import no_such_module_here", ModuleNotFoundError),
            ("raise ValueError('x')", ValueError),
            ("def (", SyntaxError),
            ("import sys; sys.exit(3)", SystemExit),
        ):
            with self.subTest(source=source):
                self.write("bad.py", source)
                sys.modules.pop("bad", None)
                with self.assertRaises(kind):
                    load_app("bad:app")

    def test_no_such_module(self):
        for uri in ("no_such_module_here:app", "no_such_module_here.py:app", "shop.inner:app"):
            with self.subTest(uri=uri), self.assertRaises(ModuleNotFoundError):
                load_app(uri)

    def test_what_the_factory_raises_passes_through(self):
        with self.assertRaises(SystemExit):
            load_app("shop:exits()")


class TestPath(Loading):
    def test_the_order_of_gunicorn(self):
        before = list(sys.path)
        for name in ("start", "work", "one", "two"):
            os.mkdir(os.path.join(self.folder, name))
        start, work, one, two = (os.path.join(self.folder, name) for name in ("start", "work", "one", "two"))
        for _ in range(2):
            prepare_path({"cwd": start, "chdir": work, "pythonpath": f"{one},{two}"})
            self.assertEqual(sys.path, [two, one, work, start, *before])
            self.assertEqual(os.getcwd(), work)

    def test_no_pythonpath(self):
        before = list(sys.path)
        for value in (None, "", ","):
            prepare_path({"cwd": self.folder, "chdir": self.folder, "pythonpath": value})
            self.assertEqual(sys.path, before)


if __name__ == "__main__":
    unittest.main()
