"""Finds the app that `MODULE:CALLABLE` or --paste names."""

import ast
import importlib
import os
import sys
import traceback
from types import FunctionType

# As in inspect.
_CO_VARARGS = 0x04
_CO_COROUTINE = 0x80


class AppLoadError(Exception):
    """The app's name cannot be resolved: a worker exits with 4, as gunicorn's does."""


def advice_on(error, uri):
    """What else to look at when the import of the app `uri` has raised `error`, in one line: the folder, or the Python. Else None."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    library = os.path.dirname(os.__file__)
    if not os.access(library, os.R_OK | os.X_OK):  # --user, and a Python that root has installed in its own home
        return (
            "%s: user %d may not read %s, where this Python has its own modules. Name a Python that all users may run"
            " with --python PATH" % (error, os.getuid(), library)
        )
    parent, _, name = uri.partition(":")[0].rpartition(".")
    if callable(getattr(sys.modules.get(parent), name, None)):  # as WSGI_APPLICATION has it in Django's settings
        return "%s: did you mean '%s:%s'?" % (error, parent, name)
    for source, named in (("the start", uri), ("DJANGO_SETTINGS_MODULE", os.environ.get("DJANGO_SETTINGS_MODULE"))):
        module = (named or "").partition(":")[0]
        if error.name and (module + ".").startswith(error.name + "."):
            return (
                "%s: %s names %s, which is looked for in %s%s. Correct the name, start in the folder that holds it"
                " (for Django that of manage.py), or name that folder with --chdir DIR"
                % (error, source, module, os.getcwd(), project_here())
            )
    if sys.prefix != sys.base_prefix:
        return None
    active = os.environ.get("VIRTUAL_ENV")
    meant = os.path.join(os.path.abspath(active or ".venv"), "bin", "python")
    if (active or os.path.lexists(meant)) and not os.access(meant, os.X_OK):  # moved, of another machine, or of a user in /root
        return (
            "%s: the Python is %s, since %s, that of the virtual environment, cannot be run by user %d. Make the environment"
            " anew, or name another Python with --python PATH" % (error, sys.executable or "python3", meant, os.getuid())
        )
    pythons = (os.path.join(os.getcwd(), folder, "bin", "python") for folder in (".venv", "venv", "env"))
    python = next(filter(os.path.exists, pythons), "PATH")
    return (
        "%s: the Python is %s. If the project has a virtual environment, activate it before the start,"
        " or name its Python with --python %s" % (error, sys.executable or "python3", python)
    )


def project_here():
    """` (NAME.wsgi is there)`, if a Django project is in this folder."""
    try:
        names = sorted(name for name in os.listdir() if os.path.isfile(os.path.join(name, "wsgi.py")))
    except OSError:
        names = []
    return " (%s.wsgi is there)" % names[0] if names else ""


def prepare_path(settings):
    """chdir and sys.path as gunicorn sets them: --pythonpath, the last folder first, then --chdir, then where the start was."""
    os.chdir(settings["chdir"])
    for folder in (settings["cwd"], settings["chdir"], *(settings["pythonpath"] or "").split(",")):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)


def find_app(uri, settings):
    """The app of a server with these settings: `load_app`, or what PasteDeploy makes with --paste."""
    if settings["paste"] is None:
        return load_app(uri)
    from .paste import load_paste_app

    return load_paste_app(uri, settings["raw_paste_global_conf"])


def load_app(uri):
    """The WSGI callable named by `module`, `module:name`, `module:object.name` or `module:factory(arguments)`.

    Raises AppLoadError for a name that is not there or is no callable; whatever the import raises passes through.
    """
    module_name, _, expression = uri.partition(":")
    expression = expression or "application"
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        if module_name.endswith(".py") and os.path.exists(module_name):
            raise AppLoadError(
                "Failed to find application, did you mean '%s:%s'?" % (module_name.rpartition(".")[0], expression)
            ) from None
        raise
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise AppLoadError("Failed to parse %r as an attribute name or function call." % expression) from None
    call = None
    if isinstance(tree, ast.Call):
        call, tree = tree, tree.func
    names = []
    while isinstance(tree, ast.Attribute):
        names.append(tree.attr)
        tree = tree.value
    if not isinstance(tree, ast.Name):
        raise AppLoadError("Failed to parse %r as an attribute name or function call." % expression)
    app = module
    for name in [tree.id, *reversed(names)]:
        try:
            app = getattr(app, name)
        except AttributeError:
            raise AppLoadError("Failed to find attribute %r in %r.%s" % (name, module_name, meant_by(uri, module))) from None
    if call is not None:
        try:
            arguments = [ast.literal_eval(argument) for argument in call.args]
            keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        except ValueError:
            raise AppLoadError("Failed to parse arguments as literal values: %r" % expression) from None
        try:
            app = app(*arguments, **keywords)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is None:
                raise AppLoadError("".join(traceback.format_exception_only(type(error), error)).strip()) from None
            raise
    if app is None:
        raise AppLoadError("Failed to find application object: %r" % expression)
    if not callable(app):
        raise AppLoadError("Application object must be callable: %r is %s." % (expression, type(app).__name__))
    if is_coroutine_function(app) or is_coroutine_function(type(app).__call__):
        raise AppLoadError(
            "Application object must be a WSGI application: %r is a coroutine function, as ASGI applications are."
            " Name the project's WSGI application (Django: PROJECT.wsgi:application),"
            " or wrap it, for example with a2wsgi.ASGIMiddleware." % expression
        )
    if takes_too_few(app):
        raise AppLoadError(
            "Application object must take two arguments, environ and start_response: %r takes %d."
            " A function that makes the application is named with parentheses: '%s:%s()'."
            % (expression, app.__code__.co_argcount, module_name, expression)
        )
    return app


def meant_by(uri, module):
    """A question to add, if the module has what is called so in most, or is the package of a Django project."""
    module_name = uri.partition(":")[0]
    for name in ("application", "app"):
        if callable(getattr(module, name, None)):
            return " Did you mean '%s:%s'?" % (module_name, name)
    for name in ("create_app", "make_app"):
        if callable(getattr(module, name, None)):
            return " Did you mean '%s:%s()'?" % (module_name, name)
    if any(os.path.exists(os.path.join(folder, "wsgi.py")) for folder in getattr(module, "__path__", ())):
        return " Did you mean '%s.wsgi'?" % module_name
    return ""


def takes_too_few(app):
    """Whether it is a function that no server can call, as a factory of Flask's is."""
    return type(app) is FunctionType and app.__code__.co_argcount < 2 and not app.__code__.co_flags & _CO_VARARGS


def is_coroutine_function(function):
    """inspect.iscoroutinefunction, without what that module takes to import."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & _CO_COROUTINE)
