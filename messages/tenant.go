package messages

// maxTenantBytes is the length of a DNS label, so that a tenant can be one.
const maxTenantBytes = 63

// TenantPattern is what ValidTenant accepts, as a regular expression.
const TenantPattern = "^[a-z0-9][a-z0-9-]{0,62}$"

// ValidTenant reports whether the name is a tenant's: it matches TenantPattern. TenantAdmin does not.
func ValidTenant(name string) bool {
	if name == "" || len(name) > maxTenantBytes || name[0] == '-' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// CheckScope judges whether the endpoint may be called under the tenant name that a subject or a path gave.
func (e EndpointInfo) CheckScope(tenant string) error {
	switch {
	case tenant == TenantAdmin && (e.Operator || e.Shared), ValidTenant(tenant) && !e.Operator:
		return nil
	case tenant == TenantAdmin:
		return &Error{Code: CodeForbidden, Message: e.Name + " is called under a tenant, not under " + TenantAdmin}
	case ValidTenant(tenant):
		return &Error{Code: CodeForbidden, Message: e.Name + " is for the operator: call it under the tenant " + TenantAdmin}
	}
	return Invalid("tenant", "must match "+TenantPattern)
}
