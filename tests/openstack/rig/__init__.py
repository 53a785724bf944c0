"""A real OpenStack control plane on the loopback interface, for tests of provisioning.

Keystone, Glance, Placement, Neutron, Nova (fake hypervisor), Cinder and Blazar from PyPI on MariaDB and RabbitMQ from
Debian, and a real sshd behind the floating IPs. Needs root on Debian. Everything listens on one free block of 127/8.
"""
