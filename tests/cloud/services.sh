# The services of OpenStack, run by ./zed inside their root file system. /mnt/log/up appears at the
# end. The databases stay in the root file system: only the first start makes them.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
log=/mnt/log done=/var/lib/zed-done
exec > $log/services 2>&1
set -x
new=; [ -e $done ] || new=1

mkdir -p /run/mysqld /run/libvirt /run/lock; chown mysql /run/mysqld
mariadbd --user=mysql --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M > $log/mariadb 2>&1 &
HOME=/var/lib/rabbitmq setpriv --reuid rabbitmq --regid rabbitmq --clear-groups \
    /usr/lib/rabbitmq/bin/rabbitmq-server > $log/rabbitmq 2>&1 &
until mysqladmin ping; do sleep 0.5; done

db() { echo "mysql+pymysql://os:os@127.0.0.1/$1?charset=utf8"; }
credentials() { # of the services, for each other
    cat <<END
auth_url = http://127.0.0.1:5000/v3
auth_type = password
project_domain_name = Default
user_domain_name = Default
project_name = service
username = svc
password = svc
region_name = one
END
}
admin() { # a command with the rights of the administrator
    env OS_AUTH_URL=http://127.0.0.1:5000/v3 OS_USERNAME=admin OS_PASSWORD=admin \
        OS_PROJECT_NAME=admin OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default \
        OS_REGION_NAME=one "$@"
}
tokens() { echo "[keystone_authtoken]"; credentials; }
nova() {
    cat <<END
[DEFAULT]
compute_driver = libvirt.LibvirtDriver
my_ip = 127.0.0.1
transport_url = rabbit://guest:guest@127.0.0.1:5672/
state_path = /var/lib/nova
enabled_apis = osapi_compute
osapi_compute_workers = 1
osapi_compute_listen = 127.0.0.1
vif_plugging_is_fatal = false
vif_plugging_timeout = 0
[api]
auth_strategy = keystone
[oslo_concurrency]
lock_path = /var/lib/nova/tmp
[glance]
api_servers = http://127.0.0.1:9292
[libvirt]
virt_type = qemu
cpu_mode = none
[scheduler]
workers = 1
[conductor]
workers = 1
END
    tokens
    for name in placement neutron service_user; do echo "[$name]"; credentials; done
}
printf '[database]\nconnection = %s\n[token]\nprovider = fernet\n' "$(db keystone)" \
    > /etc/keystone/keystone.conf
{
    printf '[DEFAULT]\nbind_host = 127.0.0.1\nworkers = 1\n[database]\nconnection = %s\n' "$(db glance)"
    printf '[paste_deploy]\nflavor = keystone\n[glance_store]\nstores = file\ndefault_store = file\n'
    printf 'filesystem_store_datadir = /var/lib/glance/images/\n'
    tokens
} > /etc/glance/glance-api.conf
{
    printf '[placement_database]\nconnection = %s\n[api]\nauth_strategy = keystone\n' "$(db placement)"
    tokens
} > /etc/placement/placement.conf
nova > /etc/nova/compute.conf # nova-compute refuses to start with a [database]
{
    nova
    printf '[database]\nconnection = %s\n[api_database]\nconnection = %s\n' "$(db nova)" "$(db nova_api)"
} > /etc/nova/nova.conf

wsgi() { # PORT FILE NAME; uwsgi resets connections that clients keep open, unless it says so
    uwsgi_python3 --http-socket "127.0.0.1:$1" --wsgi-file "$2" --master --processes 1 --threads 4 \
        --enable-threads --lazy-apps --buffer-size 65535 --post-buffering 65536 --die-on-term \
        --add-header 'Connection: close' \
        > "$log/$3" 2>&1 &
}
set -e # without complete databases no service starts
if [ -n "$new" ]; then
    for name in nova nova_api nova_cell0 keystone glance placement; do
        mysql -e "CREATE DATABASE IF NOT EXISTS $name CHARACTER SET utf8;
            GRANT ALL ON $name.* TO os@localhost IDENTIFIED BY 'os';
            GRANT ALL ON $name.* TO os@'127.0.0.1' IDENTIFIED BY 'os'"
    done
    mkdir -p /etc/keystone/fernet-keys /etc/keystone/credential-keys
    chown -R keystone /etc/keystone
    keystone-manage db_sync
    for kind in fernet credential; do
        keystone-manage ${kind}_setup --keystone-user keystone --keystone-group keystone
    done
    keystone-manage bootstrap --bootstrap-password admin --bootstrap-region-id one \
        --bootstrap-{admin,internal,public}-url=http://127.0.0.1:5000/v3/
    glance-manage db_sync
    placement-manage db sync
    nova-manage api_db sync
    nova-manage cell_v2 map_cell0
    nova-manage cell_v2 create_cell --name=cell1
    nova-manage db sync
fi
wsgi 5000 /usr/bin/keystone-wsgi-public keystone
until python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:5000/v3")'; do sleep 1; done
[ -z "$new" ] || admin python3 - <<'END'
import openstack

identity = openstack.connect(cloud="envvars").identity
roles = {one.name: one for one in identity.roles()}
for project, user in (("service", "svc"), ("tests", "tester")):
    made = identity.create_project(name=project, domain_id="default")
    account = identity.create_user(name=user, password=user, domain_id="default")
    for name in ("member",) if user == "tester" else ("admin", "service"):
        if name not in roles:
            roles[name] = identity.create_role(name=name)
        identity.assign_project_role_to_user(made, account, roles[name])
for kind, url in (
    ("compute", "http://127.0.0.1:8774/v2.1"),
    ("image", "http://127.0.0.1:9292"),
    ("placement", "http://127.0.0.1:8778"),
    ("network", "http://127.0.0.1:9696"),
):
    service = identity.create_service(name=kind, type=kind)
    for interface in ("public", "internal", "admin"):
        identity.create_endpoint(
            service_id=service.id, interface=interface, url=url, region_id="one"
        )
END
touch $done
set +e

python3 /mnt/neutron.py > $log/neutron 2>&1 &
bridge=brq6d6a7c5e-0d
ip link add $bridge type bridge
ip addr add 192.168.77.1/24 dev $bridge
ip link set $bridge up
install -d -o glance /var/lib/glance/images
glance-api > $log/glance 2>&1 &
wsgi 8778 /usr/bin/placement-api placement
mkdir -p /var/lib/nova/tmp /var/lib/nova/instances; chown -R root /var/lib/nova
virtlogd -d
libvirtd -d
for name in api conductor scheduler; do nova-$name > $log/nova-$name 2>&1 & done
nova-compute --config-file /etc/nova/compute.conf > $log/nova-compute 2>&1 &
# grep -q would end nova-manage before it has written the mapping.
until nova-manage cell_v2 list_hosts | grep zed > /dev/null; do
    nova-manage cell_v2 discover_hosts
    sleep 3
done
# After a later start the mapping is there, but the host has not reported yet.
until admin openstack compute service list --service nova-compute -f value -c State |
    grep up > /dev/null; do
    sleep 2
done
touch $log/up
sleep infinity
