package snapshot

import (
	"strings"
	"unicode/utf8"
)

// Long strings are cut into parts of minText to maxText bytes, after white space where there is some, at places that the text
// itself determines. It is content-defined chunking with a gear hash (Xia et al.: FastCDC, USENIX ATC 2016), looked at after
// each word. Up to wholeText they are not cut.
const (
	wholeText = 4096
	minText   = 1024
	maxText   = 8192
	// cutBits of the hash are zero after one word in 256.
	cutBits = 8
)

var gear = func() (table [256]uint64) {
	for i := range table {
		table[i] = mix(uint64(i+1) * 0x9e3779b97f4a7c15)
	}
	return table
}()

// cutText returns how many bytes of the characters of a string, as they are written in JSON, are its first part. It cuts between
// characters: not within UTF-8, an escape or a pair of surrogates.
func cutText(s []byte) int {
	if len(s) <= wholeText {
		return len(s)
	}
	var hash, lowest uint64
	best, bestIsSpace := 0, false
	for pos := 0; pos < min(len(s), maxText); {
		c := s[pos]
		hash = hash<<1 + gear[c]
		pos++
		space := c == ' '
		switch {
		case c == '\\':
			var length int
			length, space = escape(s[pos-1:])
			for ; length > 1; length-- {
				hash = hash<<1 + gear[s[pos]]
				pos++
			}
		case c >= utf8.RuneSelf && pos < len(s) && !utf8.RuneStart(s[pos]):
			continue // the character is not over
		}
		if pos < minText {
			continue
		}
		if space && hash>>(64-cutBits) == 0 {
			return pos
		}
		if pos <= maxText && (best == 0 || space && !bestIsSpace || space == bestIsSpace && hash < lowest) {
			best, bestIsSpace, lowest = pos, space, hash
		}
	}
	return best
}

// escape returns the length of the escape that s begins with, of both if they are a pair of surrogates, and whether it is white
// space.
func escape(s []byte) (length int, space bool) {
	switch {
	case s[1] != 'u':
		return 2, s[1] == 'n' || s[1] == 't' || s[1] == 'r'
	case len(s) >= 12 && isEscape(s, "89abAB") && isEscape(s[6:], "cdefCDEF"):
		return 12, false
	}
	return 6, false
}

// isEscape reports whether s begins with \\uDX, where X is one of some digits: half of a pair of surrogates.
func isEscape(s []byte, digits string) bool {
	return s[0] == '\\' && s[1] == 'u' && s[2]|0x20 == 'd' && strings.IndexByte(digits, s[3]) >= 0
}
