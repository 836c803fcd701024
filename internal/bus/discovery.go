package bus

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/ai-cherry/morello/messages"
)

// serviceName is the name of the service in discovery: all workers together are one.
const serviceName = "morello"

// subscribeDiscovery answers $SRV.PING, INFO and STATS: to all, to the service, and to this instance.
func (s *Server) subscribeDiscovery() error {
	answers := map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: s.identity(), Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return s.info() },
		micro.StatsVerb: func() any { return s.serviceStats() },
	}
	for verb, answer := range answers {
		for _, to := range [][2]string{{"", ""}, {serviceName, ""}, {serviceName, s.cfg.Instance}} {
			subject, err := micro.ControlSubject(verb, to[0], to[1])
			if err != nil {
				return fmt.Errorf("discovery: %w", err)
			}
			if err := s.subscribeAnswer(subject, answer); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) subscribeAnswer(subject string, answer func() any) error {
	sub, err := s.conn.nc.Subscribe(subject, func(msg *nats.Msg) {
		if !mayReplyTo(msg.Reply) {
			s.dropped.replySubject.Add(1)
			return
		}
		body, err := json.Marshal(answer())
		if err != nil {
			s.log.Error("a discovery reply could not be encoded", "error", err)
			return
		}
		s.send(&nats.Msg{Subject: msg.Reply, Data: body})
	})
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", subject, err)
	}
	s.control = append(s.control, sub)
	return nil
}

func (s *Server) identity() micro.ServiceIdentity {
	return micro.ServiceIdentity{
		Name: serviceName, ID: s.cfg.Instance, Version: s.cfg.Version,
		Metadata: map[string]string{"program": s.cfg.Program},
	}
}

func (s *Server) info() micro.Info {
	info := micro.Info{
		ServiceIdentity: s.identity(), Type: micro.InfoResponseType,
		Description: "Data plane for AI agents: cache, sessions, snapshots, registry, audit, knowledge",
	}
	for _, e := range s.endpoints {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: endpointName(e.Endpoint), Subject: e.Endpoint.WorkerSubject(), QueueGroup: messages.QueueGroup,
			Metadata: endpointMetadata(e.Endpoint),
		})
	}
	return info
}

// endpointName is the name of an endpoint in discovery, where dots are not allowed.
func endpointName(e messages.EndpointInfo) string { return strings.ReplaceAll(e.Name, ".", "-") }

// endpointMetadata describes an endpoint. The schema of raw bytes is that of their headers.
func endpointMetadata(e messages.EndpointInfo) map[string]string {
	metadata := map[string]string{
		"description":    e.Doc,
		"timeout":        e.Timeout.String(),
		"request_schema": messages.RequestSchema(e.Name),
		"reply_schema":   messages.ReplySchema(e.Name),
	}
	if e.RawRequest != nil {
		metadata["request_content_type"] = messages.ContentTypeRaw
	}
	if e.RawReply != nil {
		metadata["reply_content_type"] = messages.ContentTypeRaw
	}
	return metadata
}

func (s *Server) serviceStats() micro.Stats {
	report := micro.Stats{ServiceIdentity: s.identity(), Type: micro.StatsResponseType, Started: s.startedAt}
	for _, e := range s.endpoints {
		report.Endpoints = append(report.Endpoints, &micro.EndpointStats{
			Name: endpointName(e.Endpoint), Subject: e.Endpoint.WorkerSubject(), QueueGroup: messages.QueueGroup,
			NumRequests: int(e.stats.requests.Load()), NumErrors: int(e.stats.errors.Load()),
			LastError:      e.stats.lastErrorText(),
			ProcessingTime: e.stats.total(), AverageProcessingTime: e.stats.average(),
		})
	}
	return report
}
