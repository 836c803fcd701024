package postgres

import "strings"

var arrayEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// ArrayLiteral writes texts as PostgreSQL writes an array of them. Statements that take many lists at once take them so: an array of
// arrays would need all to be of one length, and unnest would flatten it.
func ArrayLiteral(texts []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, text := range texts {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		_, _ = arrayEscapes.WriteString(&b, text)
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
