"""Build the kernels as C extensions where that works, and plain Python where it does not.

The kernels are ordinary ``.py`` files in ``src/unimeter/engine`` that say
``import cython``; where one is called by another at C level, a ``.pxd`` of the
same name lies beside it. With Cython and a working C compiler
each becomes an extension module next to its source; without, the same files
are installed and run interpreted, giving the same bytes (promise P10), only
slower. It is all or none: kernels call each other at C level, so a mixture
of compiled and interpreted ones is not a state this project has.

``UNIMETER_NO_COMPILE=1`` asks for the interpreted form. Everything else about
the package is in ``pyproject.toml``.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
KERNELS = Path("src/unimeter/engine")
SLOWER = "unimeter: building without compiled kernels; they will run interpreted, slower, because"


def kernel_sources() -> list[Path]:
    """Return the kernels' ``.py`` files, relative to this file."""
    return [
        path.relative_to(ROOT)
        for path in sorted((ROOT / KERNELS).glob("*.py"))
        if "\nimport cython\n" in path.read_text(encoding="utf-8")
    ]


def why_not_compile() -> str:
    """Return the reason why kernels can't be compiled here; empty if they can."""
    if os.environ.get("UNIMETER_NO_COMPILE", "") not in ("", "0"):
        return "UNIMETER_NO_COMPILE is set"
    try:
        import Cython.Build  # noqa: F401
    except ImportError:
        return "Cython is not installed"
    return "" if compiler_works() else "no working C compiler with Python's headers was found"


def compiler_works() -> bool:
    """Compile a two-line extension: the only test that also finds missing headers."""
    from setuptools._distutils.ccompiler import new_compiler
    from setuptools._distutils.errors import CompileError, DistutilsError
    from setuptools._distutils.sysconfig import customize_compiler

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(
            "#include <Python.h>\nint unimeter_probe(void) { return PY_MAJOR_VERSION; }\n"
        )
        compiler = new_compiler()
        try:
            customize_compiler(compiler)
            compiler.compile(
                [str(source)], output_dir=folder, include_dirs=[sysconfig.get_path("include")]
            )
        except (CompileError, DistutilsError, OSError):
            return False
    return True


def kernel_extensions() -> list[Extension]:
    """Translate the kernels to C; an empty list, and one line on stderr, where that can't be."""
    sources = kernel_sources()
    reason = why_not_compile()
    if reason or not sources:
        if sources and "egg_info" not in sys.argv:
            print(SLOWER, reason, file=sys.stderr)
        return []
    from Cython.Build import cythonize

    flags = ["-O3", "-g0", "-fno-semantic-interposition", "-Wno-sign-compare"]
    extensions = [
        Extension(
            ".".join(path.with_suffix("").parts[1:]),
            [str(path)],
            extra_compile_args=[] if os.name == "nt" else flags,
        )
        for path in sources
    ]
    result: list[Extension] = cythonize(
        extensions,
        include_path=["src"],
        build_dir="build/cython",
        nthreads=os.cpu_count() or 1,
        compiler_directives={"show_performance_hints": False, "initializedcheck": False},
        quiet=True,
    )
    return result


class BuildKernels(build_ext):
    """build_ext that gives up on all kernels when one does not compile or link."""

    def finalize_options(self) -> None:
        """Compile as many at a time as there are processors, unless told otherwise."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def run(self) -> None:
        """Build them all, or remove what was built and say so."""
        try:
            super().run()
        except Exception as error:
            print(SLOWER, f"one did not compile: {error}", file=sys.stderr)
            for path in map(Path, self.get_outputs()):
                path.unlink(missing_ok=True)
            self.extensions = []
            self.distribution.ext_modules = []


setup(ext_modules=kernel_extensions(), cmdclass={"build_ext": BuildKernels})
