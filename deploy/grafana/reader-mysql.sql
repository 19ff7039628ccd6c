-- A user who may only read; run this as an administrator, with a password of your own.
CREATE USER grafana IDENTIFIED BY 'change me';
GRANT SELECT, SHOW VIEW ON mqtt.* TO grafana;
