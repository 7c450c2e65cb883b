"""Lets the unmodified sglang==0.5.23 wheel start on a machine without a GPU. For development and tests, not for speed.

Python runs this file by itself where its folder is on the import path, in the server's process and in each one that
the server spawns. psr puts the folder there for a server with `device: cpu` and for nothing else.

SGLang imports three packages at its start that a text model on a CPU never calls: `triton` and `torchvision`, for which
modules without contents stand in here, and `sgl_kernel`, whose stand-in lies beside this file. Whatever is called all
the same raises, or decides on the way that suits no GPU, at once.
"""

import importlib.abc
import importlib.machinery
import sys
import types

ABSENT = ("triton", "torchvision")


def attribute(name):
    """Any attribute of anything in an absent package: a name with a capital is a class, the rest are plain objects."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "driver":  # where SGLang asks triton for the GPU, and is ready to hear that there is none
        raise RuntimeError("there is no GPU driver")
    return AbsentClass(name, (Nothing,), {}) if name[0].isupper() else Nothing()


class Nothing:
    """Stands for any object: has every attribute, may be indexed, decorates without effect."""

    def __init__(self, *args, **kwargs):
        pass

    def __getattr__(self, name):
        return attribute(name)

    def __getitem__(self, index):
        return self

    def __or__(self, other):  # in annotations, as in `tl.tensor | None`
        return self

    __ror__ = __or__

    def __call__(self, *args, **kwargs):
        function_alone = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if function_alone else Nothing()


class AbsentClass(type):
    """Stands for any class: may be inherited from, and has every attribute (members of an enumeration)."""

    def __getattr__(cls, name):
        return attribute(name)


class AbsentModule(types.ModuleType):
    """Stands for any module."""

    __version__ = "3.5.0"

    def __getattr__(self, name):
        return attribute(name)


class AbsentPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of the absent packages."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return AbsentModule(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, AbsentPackages())
