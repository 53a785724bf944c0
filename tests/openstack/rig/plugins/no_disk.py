"""A Cinder driver without disks: Cinder's own logging one, which also makes volumes from images without qemu."""

from cinder import interface
from cinder.tests import fake_driver


@interface.volumedriver
class NoDiskDriver(fake_driver.FakeLoggingVolumeDriver):
    """Every volume exists by being recorded."""

    def clone_image(self, context, volume, image_location, image_meta, image_service):
        return {}, True
