// Package nats holds the configuration of nats-server for a deployment, with the permissions of tenants and programs.
// Its tests load that configuration into a real server and show what each user can and cannot do.
package nats
