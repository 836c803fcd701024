package messages

import (
	"reflect"
	"strings"
	"time"
)

const (
	// ContractVersion stands in every subject. Within a version operations, events and fields are added; none is renamed
	// or taken away.
	ContractVersion = "v1"
	// requestPrefix begins the subject of every request; the tenant, the capability and the operation follow.
	requestPrefix = "morello." + ContractVersion + "."
	// TenantAdmin is the reserved tenant under which the operator's operations are called.
	TenantAdmin = "_admin"
	// QueueGroup is the queue group that all workers share: each request reaches one of them.
	QueueGroup = "morello"
)

// Endpoint names one operation of the contract and ties its request type to its reply type.
type Endpoint[Req, Reply any] struct {
	// Name is "<capability>.<operation>", the last two tokens of the subject.
	Name string
	// Doc says in one sentence what the operation does.
	Doc string
	// Timeout is the deadline of a request that brings none of its own (HeaderTimeout).
	Timeout time.Duration
	// Mutates tells that the operation changes data, so that an Idempotency-Key has a meaning for it and its repetition
	// may not be free.
	Mutates bool
	// Idempotent tells of an operation that mutates that its repetition does the same as once, so that it needs no key for that.
	Idempotent bool
	// Operator restricts the operation to the tenant TenantAdmin.
	Operator bool
	// Shared opens the operation to the tenants, for what is theirs, and to TenantAdmin, for what its documentation says.
	Shared bool
	// Batched tells that a message may carry several requests; see MaxBatchRequests.
	Batched bool
}

// Info returns the endpoint without its types, the form in which it stands in the table.
func (e Endpoint[Req, Reply]) Info() EndpointInfo {
	return EndpointInfo{
		Name: e.Name, Doc: e.Doc, Timeout: e.Timeout, Mutates: e.Mutates, Idempotent: e.Idempotent, Operator: e.Operator, Shared: e.Shared,
		Batched: e.Batched, Request: reflect.TypeFor[Req](), Reply: reflect.TypeFor[Reply](),
		RawRequest: rawHeaders[Req](), RawReply: rawHeaders[Reply](),
	}
}

// EndpointInfo is one row of the table of endpoints.
type EndpointInfo struct {
	Name       string
	Doc        string
	Timeout    time.Duration
	Mutates    bool
	Idempotent bool
	Operator   bool
	Shared     bool
	Batched    bool
	Request    reflect.Type
	Reply      reflect.Type
	// RawRequest and RawReply are the names of the headers of a request or a reply of raw bytes; nil when it is a JSON object.
	RawRequest []string
	RawReply   []string
}

// Repeatable reports whether a request, with an idempotency key or without, may be repeated when nobody knows whether it took
// effect.
func (e EndpointInfo) Repeatable(keyed bool) bool { return !e.Mutates || e.Idempotent || keyed }

// Subject returns the subject on which a tenant calls the endpoint.
func (e EndpointInfo) Subject(tenant string) string { return requestPrefix + tenant + "." + e.Name }

// WorkerSubject returns the subject that workers subscribe to: the endpoint for every tenant.
func (e EndpointInfo) WorkerSubject() string { return e.Subject("*") }

// Capability returns the first half of the name.
func (e EndpointInfo) Capability() string {
	capability, _, _ := strings.Cut(e.Name, ".")
	return capability
}

// Operation returns the second half of the name.
func (e EndpointInfo) Operation() string {
	_, operation, _ := strings.Cut(e.Name, ".")
	return operation
}

// RequestTenant returns the tenant that a request subject names. It does not judge it: see ValidTenant.
func RequestTenant(subject string) string {
	tenant, _, _ := strings.Cut(strings.TrimPrefix(subject, requestPrefix), ".")
	return tenant
}

// EndpointByName finds an endpoint in the table.
func EndpointByName(name string) (EndpointInfo, bool) {
	for _, endpoint := range Endpoints() {
		if endpoint.Name == name {
			return endpoint, true
		}
	}
	return EndpointInfo{}, false
}

// Endpoints returns the table of all operations, by capability, in the order of the documentation.
func Endpoints() []EndpointInfo {
	return []EndpointInfo{
		CacheGetEndpoint.Info(),
		CacheSetEndpoint.Info(),
		CacheGetManyEndpoint.Info(),
		CacheSetManyEndpoint.Info(),
		CacheDeleteEndpoint.Info(),
		CacheDeleteManyEndpoint.Info(),
		CacheTouchEndpoint.Info(),
		CacheIncrementEndpoint.Info(),
		CacheKeysEndpoint.Info(),
		CacheGetByTagsEndpoint.Info(),
		CacheClearEndpoint.Info(),
		CacheInfoEndpoint.Info(),
		SessionCreateEndpoint.Info(),
		SessionGetEndpoint.Info(),
		SessionGetByTokenEndpoint.Info(),
		SessionUpdateEndpoint.Info(),
		SessionTouchEndpoint.Info(),
		SessionExtendEndpoint.Info(),
		SessionRotateEndpoint.Info(),
		SessionDeleteEndpoint.Info(),
		SessionBulkDeleteEndpoint.Info(),
		SessionDeleteUserEndpoint.Info(),
		SessionListEndpoint.Info(),
		SessionActiveCountEndpoint.Info(),
		SessionCleanupInactiveEndpoint.Info(),
		SessionAnalyticsEndpoint.Info(),
		AgentCreateEndpoint.Info(),
		AgentGetEndpoint.Info(),
		AgentUpdateEndpoint.Info(),
		AgentListEndpoint.Info(),
		AgentDeleteEndpoint.Info(),
		WorkflowCreateEndpoint.Info(),
		WorkflowGetEndpoint.Info(),
		WorkflowUpdateEndpoint.Info(),
		WorkflowListEndpoint.Info(),
		WorkflowDeleteEndpoint.Info(),
		AuditLogEndpoint.Info(),
		AuditQueryEndpoint.Info(),
		SnapshotCreateEndpoint.Info(),
		SnapshotGetEndpoint.Info(),
		SnapshotLatestEndpoint.Info(),
		SnapshotListEndpoint.Info(),
		SnapshotHistoryEndpoint.Info(),
		SnapshotDiffEndpoint.Info(),
		SnapshotSearchEndpoint.Info(),
		SnapshotStatsEndpoint.Info(),
		SnapshotDeleteEndpoint.Info(),
		SnapshotCleanupEndpoint.Info(),
		SnapshotRestoreEndpoint.Info(),
		SnapshotVerifyEndpoint.Info(),
		TransferPutEndpoint.Info(),
		TransferGetEndpoint.Info(),
		TransferDeleteEndpoint.Info(),
		SystemJobGetEndpoint.Info(),
		SystemJobListEndpoint.Info(),
		SystemJobCancelEndpoint.Info(),
		SystemJobRetryEndpoint.Info(),
	}
}
