"""Who there is: the services' account, one project, its users, and the catalogue of both sites."""

import openstack
from openstack.connection import Connection

from .block import Block
from .configs import BLAZARS, REGIONS, SERVICE_PASSWORD, SERVICE_USER

ADMIN_PASSWORD = "admin-secret"
PROJECT, DOMAIN = "CHI-231095", "chameleon"
USER, USER_PASSWORD = "teacher", "teacher-secret"
SERVICES = {  # name: type, service of the address, path
    "placement": ("placement", "placement", ""),
    "glance": ("image", "glance", ""),
    "neutron": ("network", "neutron", ""),
    "nova": ("compute", "nova", "/v2.1"),
    "cinderv3": ("volumev3", "cinder", "/v3/%(project_id)s"),
    "cinder": ("block-storage", "cinder", "/v3"),
    "blazar": ("reservation", "blazar", "/v1"),
    "keystone": ("identity", "keystone", "/v3"),
}


def admin(block: Block) -> Connection:
    """The administrator's connection; it logs in when it is first used."""
    return openstack.connect(
        auth_url=block.url("keystone", "/v3"), username="admin", password=ADMIN_PASSWORD, project_name="admin",
        user_domain_id="default", project_domain_id="default", region_name=REGIONS[0], compute_api_version="2.90",
    )  # fmt: skip


def student_environment(block: Block) -> dict[str, str]:
    """What an openrc file of the site sets."""
    return {
        "OS_AUTH_TYPE": "v3password",
        "OS_AUTH_URL": block.url("keystone", "/v3"),
        "OS_USERNAME": USER,
        "OS_PASSWORD": USER_PASSWORD,
        "OS_USER_DOMAIN_NAME": DOMAIN,
        "OS_PROJECT_NAME": PROJECT,
        "OS_PROJECT_DOMAIN_NAME": DOMAIN,
        "OS_REGION_NAME": REGIONS[0],
        "OS_INTERFACE": "public",
        "CHI_RESOURCE_API_URL": block.url("sites"),
    }


def seed(block: Block) -> None:
    """Make users, the project and the catalogue."""
    with admin(block) as connection:
        keystone = connection.identity
        service_role = keystone.find_role("service")  # made by the bootstrap
        service_project = keystone.create_project(name="service", domain_id="default")
        services = keystone.create_user(name=SERVICE_USER, password=SERVICE_PASSWORD, domain_id="default")
        for role in (service_role, keystone.find_role("admin")):
            keystone.assign_project_role_to_user(service_project.id, services.id, role.id)
        domain = keystone.create_domain(name=DOMAIN)
        project = keystone.create_project(name=PROJECT, domain_id=domain.id)
        user = keystone.create_user(name=USER, password=USER_PASSWORD, domain_id=domain.id)
        keystone.assign_project_role_to_user(project.id, user.id, keystone.find_role("member").id)
        keystone.create_region(id=REGIONS[1])
        _seed_catalogue(connection, block)


def _seed_catalogue(connection: Connection, block: Block) -> None:
    keystone = connection.identity
    for name, (kind, service, path) in SERVICES.items():
        found = keystone.find_service(name) or keystone.create_service(name=name, type=kind)
        for region in REGIONS:
            for interface in ("public", "internal", "admin"):
                if name == "keystone" and region == REGIONS[0]:
                    continue  # made when Keystone was
                url = block.url(BLAZARS[region] if name == "blazar" else service, path)
                keystone.create_endpoint(service_id=found.id, interface=interface, url=url, region_id=region)
