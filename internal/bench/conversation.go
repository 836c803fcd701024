package bench

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// opticks is Isaac Newton: Opticks, 4th edition, London 1730, which is in the public domain, in the form in which Go's
// repository has it (src/testdata/Isaac.Newton-Opticks.txt, after the book of Project Gutenberg).
//
//go:embed opticks.txt.gz
var opticks []byte

// firstLine is where the book begins, after the notes about the transcription.
const firstLine = "OPTICKS:"

// turn is what one turn of a conversation changes in a state.
type turn struct {
	Added []chatMessage  `json:"added"`
	Rest  jsontext.Value `json:"rest"` // the members beside messages
}

type chatMessage struct {
	ID      string `json:"id"`
	Role    string `json:"role"`
	Content string `json:"content"`
}

// conversation cuts the book into turns of a question of 150 to 650 bytes and an answer of 800 to 3200.
func conversation(turns int) ([]turn, error) {
	book, err := readBook()
	if err != nil {
		return nil, err
	}
	made := make([]turn, turns)
	plan := []string{}
	for i := range made {
		random := uint64(i+1) * 0x9e3779b97f4a7c15 >> 32
		var question, answer string
		question, book = cutBook(book, 150+int(random%501))
		answer, book = cutBook(book, 800+int(random>>9%2401))
		if answer == "" {
			return nil, fmt.Errorf("the book ends at turn %d", i+1)
		}
		if i%10 == 0 {
			plan = append(plan, "read on from: "+strings.Join(strings.Fields(question)[:6], " "))
		}
		rest, err := json.Marshal(struct {
			Step  int            `json:"step"`
			Model string         `json:"model"`
			Plan  []string       `json:"plan"`
			Usage map[string]int `json:"usage"`
		}{i + 1, "reader-2", plan, map[string]int{"input_tokens": 900 + 620*i, "output_tokens": 510 * (i + 1)}}, json.Deterministic(true))
		if err != nil {
			return nil, err
		}
		made[i] = turn{
			Added: []chatMessage{{fmt.Sprintf("msg-%04d", 2*i), "user", question}, {fmt.Sprintf("msg-%04d", 2*i+1), "assistant", answer}},
			Rest:  rest,
		}
	}
	return made, nil
}

func readBook() (string, error) {
	reader, err := gzip.NewReader(bytes.NewReader(opticks))
	if err != nil {
		return "", err
	}
	book, err := io.ReadAll(reader)
	return string(book[max(0, bytes.Index(book, []byte(firstLine))):]), err
}

// cutBook takes about so many bytes, to the end of a word.
func cutBook(book string, size int) (part, rest string) {
	size = min(size, len(book))
	if end := strings.IndexAny(book[size:], " \n"); end >= 0 {
		size += end
	}
	return strings.TrimSpace(book[:size]), book[size:]
}

// states returns the state after each turn, which holds all messages so far.
func states(turns []turn) ([]jsontext.Value, error) {
	made := make([]jsontext.Value, len(turns))
	all := []byte(`{"messages":[`)
	for i, t := range turns {
		for j, m := range t.Added {
			if i+j > 0 {
				all = append(all, ',')
			}
			text, err := json.Marshal(m)
			if err != nil {
				return nil, err
			}
			all = append(all, text...)
		}
		made[i] = fmt.Appendf(nil, "%s],%s", all, t.Rest[1:])
	}
	return made, nil
}
