package messages

import (
	"fmt"
	"strconv"
	"time"
)

// Headers of transfer.put and of the reply of transfer.get, whose bodies are raw bytes.
const (
	HeaderTransfer = "Morello-Transfer"
	HeaderPart     = "Morello-Part"
	HeaderParts    = "Morello-Parts"
)

// Limits of transfers.
const (
	// TransferPartBytes is how large a part may be, and how large the parts of a document are that Morello offers, but for the
	// last.
	TransferPartBytes = 512 << 10
	// TransferPartMinBytes is what a part counts at least in the tenant's quota, since it costs as much.
	TransferPartMinBytes = 4 << 10
	// MaxTransferBytes is how much the parts of a tenant may have together at a time.
	MaxTransferBytes = 256 << 20
	// MaxTransferParts is how many parts a transfer may have: as many as the quota has room for.
	MaxTransferParts = MaxTransferBytes / TransferPartMinBytes
	// TransferTTL is how long a part lives after it was put.
	TransferTTL = time.Hour
)

// TransferPutEndpoint stores a part.
var TransferPutEndpoint = Endpoint[TransferPut, TransferPutReply]{
	Name: "transfer.put", Timeout: 5 * time.Second, Mutates: true, Idempotent: true,
	Doc: "Stores a part of a document that is too large for one message: raw bytes, named by headers.",
}

// TransferPut stores a part of a document; its body is the bytes of the part, 1 to 524288. Parts come in any order and at the
// same time, and may come again: the last one stays. A part lives for an hour. All parts of a tenant have up to 256 MiB together,
// of which one counts as 4 KiB at least; over that a part is quota_exceeded until others are deleted or have expired. An
// expired part may count for ten minutes more.
type TransferPut struct {
	// TransferID is a UUID that the caller makes, the same for all parts of a document. Another tenant's is another transfer.
	TransferID string `json:"Morello-Transfer" jsonschema:"format=uuid"`
	// Part is the number of the part: 0, 1, and so on, up to 65535.
	Part int `json:"Morello-Part,string" jsonschema:"pattern=^[0-9]+$"`
	// Data are the bytes of the part.
	Data []byte `json:"-"`
}

// RawBody returns the bytes of the part.
func (m TransferPut) RawBody() []byte { return m.Data }

// RawHeaders says which part of what it is.
func (m TransferPut) RawHeaders() map[string]string {
	return map[string]string{HeaderTransfer: m.TransferID, HeaderPart: strconv.Itoa(m.Part)}
}

func (m *TransferPut) readRaw(body []byte, header func(name string) string) (err error) {
	m.TransferID, m.Data = header(HeaderTransfer), body
	m.Part, err = readNumber(header, HeaderPart)
	return err
}

// readNumber reads a header that is a whole number in digits.
func readNumber(header func(name string) string, name string) (int, error) {
	number, err := strconv.ParseUint(header(name), 10, 31)
	if err != nil {
		return 0, Invalid(name, "must be a whole number, 0 to %d", MaxTransferParts-1)
	}
	return int(number), nil
}

// Validate reports the first header that is missing or out of range, and bytes that are too few or too many.
func (m TransferPut) Validate() error {
	if err := checkPart(HeaderTransfer, m.TransferID, HeaderPart, m.Part); err != nil {
		return err
	}
	switch {
	case len(m.Data) == 0:
		return Invalid("", "the body is empty; a part has 1 to %d bytes", TransferPartBytes)
	case len(m.Data) > TransferPartBytes:
		return TooLarge("", TransferPartBytes, fmt.Sprintf("the part has %d bytes", len(m.Data)))
	}
	return nil
}

func checkPart(idField, id, partField string, part int) error {
	if err := checkTransferID(idField, id); err != nil {
		return err
	}
	if part < 0 || part >= MaxTransferParts {
		return Invalid(partField, "must be a whole number, 0 to %d", MaxTransferParts-1)
	}
	return nil
}

func checkTransferID(field, id string) error {
	if id == "" {
		return Invalid(field, "is missing; it must be a UUID")
	}
	return checkUUID(field, id)
}

// TransferPutReply says how many bytes arrived.
type TransferPutReply struct {
	ReceivedBytes int `json:"received_bytes"`
}

// TransferGetEndpoint reads a part.
var TransferGetEndpoint = Endpoint[TransferGet, TransferGetReply]{
	Name: "transfer.get", Timeout: 5 * time.Second,
	Doc: "Returns the raw bytes of a part.",
}

// TransferGet reads a part of a document that a reply offered (data_transfer), or that the tenant has put. A part that is not
// there, has expired or is another tenant's is not_found.
type TransferGet struct {
	TransferID string `json:"transfer_id" jsonschema:"format=uuid"`
	// Part is the number of the part: 0, 1, and so on; 0 when absent.
	Part int `json:"part,omitzero" jsonschema:"minimum=0,maximum=65535,default=0"`
}

// Validate reports the first field that is missing or out of range.
func (m TransferGet) Validate() error { return checkPart("transfer_id", m.TransferID, "part", m.Part) }

// TransferGetReply has the bytes of the part as its body.
type TransferGetReply struct {
	// Parts is one more than the highest number of the parts that are there: how many there are, unless some are missing.
	Parts int `json:"Morello-Parts,string" jsonschema:"pattern=^[0-9]+$"`
	// Data are the bytes of the part.
	Data []byte `json:"-"`
}

// RawBody returns the bytes of the part.
func (r TransferGetReply) RawBody() []byte { return r.Data }

// RawHeaders says how many parts there are.
func (r TransferGetReply) RawHeaders() map[string]string {
	return map[string]string{HeaderParts: strconv.Itoa(r.Parts)}
}

func (r *TransferGetReply) readRaw(body []byte, header func(name string) string) (err error) {
	r.Data = body
	r.Parts, err = readNumber(header, HeaderParts)
	return err
}

// TransferDeleteEndpoint deletes a transfer.
var TransferDeleteEndpoint = Endpoint[TransferDelete, TransferDeleteReply]{
	Name: "transfer.delete", Timeout: 10 * time.Second, Mutates: true, Idempotent: true,
	Doc: "Deletes all parts of a transfer, which makes room in the tenant's quota.",
}

// TransferDelete deletes all parts of a transfer. Who has read a document that was offered deletes it; what is not deleted
// expires.
type TransferDelete struct {
	TransferID string `json:"transfer_id" jsonschema:"format=uuid"`
}

// Validate reports an id that is missing or no UUID.
func (m TransferDelete) Validate() error { return checkTransferID("transfer_id", m.TransferID) }

// TransferDeleteReply says whether there was something to delete.
type TransferDeleteReply struct {
	Deleted bool `json:"deleted"`
}

// DataTransfer stands in a reply in place of data that is too large for one message. transfer.get returns the parts; their
// bytes in the order of the parts are the document. Who has it calls transfer.delete; after an hour it is gone by itself.
type DataTransfer struct {
	TransferID string `json:"transfer_id" jsonschema:"format=uuid"`
	// Parts of 524288 bytes, but for the last.
	Parts     int   `json:"parts"`
	SizeBytes int64 `json:"size_bytes"`
	// SHA256 of the document, in 64 lower-case hexadecimal digits.
	SHA256 string `json:"sha256"`
}

// TransferCleanupEvent reports a run of the job transfer_cleanup.
var TransferCleanupEvent = Event[MaintenanceReport]{
	Name: "maintenance.transfer_cleanup", Kept: true,
	Doc: "Expired parts of transfers were removed, or their removal failed.",
}
