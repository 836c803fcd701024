// Package compose tests docker-compose.yml, the Dockerfile and .env.example in the root of the repository, with the
// library that Docker Compose itself loads its files with. It starts no containers.
package compose
