"""What busybox's test-suite needs, as one tar: the tests of the source, and the settings Debian's static busybox is built with.

suite.py SOURCE PACKAGING SUITE: the two tars of Debian's source package, and the tar that is made."""
import io, sys, tarfile

source, packaging, suite = sys.argv[1:]
with tarfile.open(suite, "w", format=tarfile.USTAR_FORMAT) as out:
    with tarfile.open(packaging) as tar:
        settings = tar.extractfile("debian/config/pkg/static").read()
    entry = tarfile.TarInfo(".config")
    entry.size = len(settings)
    out.addfile(entry, io.BytesIO(settings))
    with tarfile.open(source) as tar:
        for entry in tar:
            _, _, inside = entry.name.partition("/")
            if inside.split("/")[0] == "testsuite":
                entry.name = inside
                out.addfile(entry, tar.extractfile(entry) if entry.isreg() else None)
