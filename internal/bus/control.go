package bus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

// controlTimeout bounds the handling of one control message.
const controlTimeout = 5 * time.Second

// ControlFunc answers a control message with a value that is encoded as JSON.
type ControlFunc func(ctx context.Context, body []byte) (any, error)

// HandleControl sets what answers a verb of control messages, which reach one worker by its instance or all at once.
// Call it before Start. Control messages are few: they are handled one after the other.
func (s *Server) HandleControl(verb string, answer ControlFunc) { s.verbs[verb] = answer }

func (s *Server) subscribeControl() error {
	for _, address := range []string{s.cfg.Instance, messages.ControlAll} {
		sub, err := s.conn.nc.Subscribe(messages.ControlSubject(address, "*"), s.receiveControl)
		if err != nil {
			return fmt.Errorf("subscribing to control messages: %w", err)
		}
		s.control = append(s.control, sub)
	}
	return nil
}

func (s *Server) receiveControl(msg *nats.Msg) {
	if !mayReplyTo(msg.Reply) {
		s.dropped.replySubject.Add(1)
		return
	}
	body, err := s.answerControl(msg)
	if err != nil {
		s.sendError(msg.Reply, messages.AsError(err), false)
		return
	}
	s.send(&nats.Msg{Subject: msg.Reply, Data: body})
}

func (s *Server) answerControl(msg *nats.Msg) ([]byte, error) {
	verb := msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:]
	answer, ok := s.verbs[verb]
	if !ok {
		return nil, &messages.Error{Code: messages.CodeNotFound, Message: "no such control verb: " + limited(verb, 100)}
	}
	ctx, cancel := context.WithTimeout(s.work, controlTimeout)
	defer cancel()
	reply, err := answer(ctx, msg.Data)
	if err != nil {
		return nil, err
	}
	return messages.Encode(reply)
}

func (s *Server) pong(context.Context, []byte) (any, error) {
	return messages.ControlPong{
		Instance: s.cfg.Instance, Program: s.cfg.Program, StartedAt: s.startedAt, InFlight: s.InFlight(),
	}, nil
}

// Control sends a control message to one instance, or to messages.ControlAll, and collects the answers until as many
// as wanted have come or the context ends. The answers that came are returned in either case: who should have answered
// stands in the table worker_lease.
func (c *Conn) Control(ctx context.Context, instance, verb string, want int) ([][]byte, error) {
	sub, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err != nil {
		return nil, fmt.Errorf("control %s: %w", verb, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	msg := &nats.Msg{Subject: messages.ControlSubject(instance, verb), Reply: sub.Subject}
	if err := c.nc.PublishMsg(msg); err != nil {
		return nil, fmt.Errorf("control %s: %w", verb, err)
	}
	var answers [][]byte
	for len(answers) < want {
		answer, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return answers, fmt.Errorf("control %s: %d of %d workers answered: %w", verb, len(answers), want, err)
		}
		if failure := replyError(answer); failure != nil {
			return answers, failure
		}
		answers = append(answers, answer.Data)
	}
	return answers, nil
}
