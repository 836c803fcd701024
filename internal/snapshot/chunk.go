package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Hash names a chunk: the SHA-256 of its preimage.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// refKind says what a reference to a chunk stands for in the text of the document.
type refKind byte

const (
	literal  refKind = iota // no reference: text of the document as it is
	value                   // one JSON value
	elements                // elements of an array, with commas between them
	members                 // members of an object, with commas between them
	text                    // characters of a string, as they are written between its quotes
)

// nodeBit in the tag of a segment says that the chunk has children of its own; its hash is in the list of nodes.
const (
	kindBits = 3
	nodeBit  = 1 << kindBits
	tagBits  = kindBits + 1
)

// chunk is one node of a tree. A leaf has no children, and its body is text of the document. Another's body is a list of
// segments, each a literal or a reference to the next of its children. The document is what is left when every reference is
// replaced by the text of its chunk.
type chunk struct {
	searchable bool   // search is to find the strings of the body
	nodes      []Hash // children that have children
	leaves     []Hash // children that have none
	body       []byte
}

// size is how much there is to write, in bytes.
func (c *chunk) size() int { return (1+len(c.nodes)+len(c.leaves))*sha256.Size + len(c.body) }

func (c *chunk) isLeaf() bool { return len(c.nodes)+len(c.leaves) == 0 }

// hash returns the name of the chunk: SHA-256 of a byte that is 1 if it is searchable and 0 if not, the number of nodes, their
// hashes, the number of leaves, their hashes, and the body. Numbers are unsigned varints, as protocol buffers have them.
func (c *chunk) hash() (sum Hash) {
	var space [maxText + 1<<10]byte // most chunks are smaller
	preimage := space[:0]
	if size := len(c.body) + (len(c.nodes)+len(c.leaves))*sha256.Size + 2*binary.MaxVarintLen64 + 1; size > len(space) {
		preimage = make([]byte, 0, size)
	}
	searchable := byte(0)
	if c.searchable {
		searchable = 1
	}
	preimage = append(preimage, searchable)
	preimage = appendHashes(binary.AppendUvarint(preimage, uint64(len(c.nodes))), c.nodes)
	preimage = appendHashes(binary.AppendUvarint(preimage, uint64(len(c.leaves))), c.leaves)
	return sha256.Sum256(append(preimage, c.body...))
}

func appendHashes(dst []byte, hashes []Hash) []byte {
	for i := range hashes {
		dst = append(dst, hashes[i][:]...)
	}
	return dst
}

// splitHashes reads hashes that stand one after the other.
func splitHashes(joined []byte) ([]Hash, error) {
	if len(joined)%sha256.Size != 0 {
		return nil, errors.New("a list of hashes has a broken one at its end")
	}
	hashes := make([]Hash, len(joined)/sha256.Size)
	for i := range hashes {
		copy(hashes[i][:], joined[i*sha256.Size:])
	}
	return hashes, nil
}

// segment is a part of a chunk's text.
type segment struct {
	kind  refKind
	bytes []byte // of a literal
	hash  Hash   // of a reference, as what follows
	node  bool
	count int   // elements or members that it stands for; 1 for a value, 0 for text
	size  int64 // bytes of text that it stands for
}

func appendLiteral(body, text []byte) []byte {
	if len(text) == 0 {
		return body
	}
	return append(binary.AppendUvarint(body, uint64(len(text))<<tagBits), text...)
}

func appendRef(body []byte, s segment) []byte {
	tag := uint64(s.count)<<tagBits | uint64(s.kind)
	if s.node {
		tag |= nodeBit
	}
	return binary.AppendUvarint(binary.AppendUvarint(body, tag), uint64(s.size))
}

// errMalformed is about a body whose hash is right, so that it was never one of ours.
var errMalformed = errors.New("the chunk is malformed")

// segments takes the body apart. A leaf is one literal.
func (c *chunk) segments() ([]segment, error) {
	if c.isLeaf() {
		return []segment{{kind: literal, bytes: c.body, size: int64(len(c.body))}}, nil
	}
	parts := make([]segment, 0, 2*(len(c.nodes)+len(c.leaves))+1)
	nodes, leaves := c.nodes, c.leaves
	for rest := c.body; len(rest) > 0; {
		tag, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil, errMalformed
		}
		rest = rest[n:]
		part := segment{kind: refKind(tag & (nodeBit - 1)), node: tag&nodeBit != 0, count: int(tag >> tagBits)}
		list := &leaves
		if part.node {
			list = &nodes
		}
		switch {
		case part.kind == literal:
			if part.node || part.count > len(rest) {
				return nil, errMalformed
			}
			part.bytes, rest = rest[:part.count], rest[part.count:]
			part.size, part.count = int64(part.count), 0
		case part.kind > text || len(*list) == 0:
			return nil, errMalformed
		default:
			size, n := binary.Uvarint(rest)
			if n <= 0 || size > maxDocument {
				return nil, errMalformed
			}
			rest = rest[n:]
			part.size, part.hash, *list = int64(size), (*list)[0], (*list)[1:]
		}
		parts = append(parts, part)
	}
	if len(nodes)+len(leaves) > 0 {
		return nil, errMalformed
	}
	return parts, nil
}

// fault says that a chunk of a tree cannot be used.
type fault struct {
	hash Hash
	why  error
}

func (f *fault) Error() string { return fmt.Sprintf("chunk %s: %v", f.hash, f.why) }

func (f *fault) Unwrap() error { return f.why }

var (
	errDamaged = errors.New("is damaged: its bytes do not have its hash")
	errMissing = errors.New("is missing")
)
