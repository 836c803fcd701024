package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
)

// maxPayload is what Morello's operations need at most in one message: 8 MiB.
const maxPayload = 8 << 20

// maxPending is what the server keeps for a connection that reads slowly, before it cuts it off: at the default of 64 MiB a
// burst of large requests costs a worker its connection.
const maxPending = 256 << 20

// NATSConfig says how a nats-server runs. The zero value is good.
type NATSConfig struct {
	// Port on 127.0.0.1. Defaults to a free one; a taken port is an error.
	Port int

	// StoreDir holds JetStream's files. Defaults to a new temporary directory that Shutdown removes.
	StoreDir string

	// ConfigFile is a nats-server configuration, for its users, permissions and limits. What listens or writes files is
	// not taken from it: client port and store directory are ours, and there is no monitoring port, cluster, gateway,
	// leaf node, WebSocket, MQTT, pid or log file. Defaults to no users and a maximum payload of 8 MiB.
	ConfigFile string

	// NoJetStream leaves JetStream out, as a server does whose configuration does not name it.
	NoJetStream bool

	// Log gets the server's warnings and errors, and its notices at level debug. Defaults to none.
	Log *slog.Logger
}

// NATS is a nats-server in this process.
type NATS struct {
	server   *server.Server
	storeDir string // to be removed, if not empty
	shutdown sync.Once
}

// StartNATS starts a server and returns once it accepts connections. It does not touch the process's signals.
func StartNATS(cfg NATSConfig) (*NATS, error) {
	options, err := natsOptions(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := reservePort(context.Background(), cfg.Port); err != nil {
		return nil, err
	}
	n := &NATS{}
	if options.StoreDir == "" {
		if options.StoreDir, err = os.MkdirTemp("", "morello-nats-"); err != nil {
			return nil, fmt.Errorf("devstack: NATS: %w", err)
		}
		n.storeDir = options.StoreDir
	}
	if n.server, err = server.NewServer(options); err != nil {
		n.removeStore()
		return nil, fmt.Errorf("devstack: NATS: %w", err)
	}
	log := &natsLog{to: cfg.Log}
	if log.to == nil {
		log.to = slog.New(slog.DiscardHandler)
	}
	n.server.SetLoggerV2(log, false, false, false)
	n.server.Start() // returns when it listens or has failed
	if err := log.fatal(); err != nil {
		n.Shutdown()
		return nil, fmt.Errorf("devstack: NATS: %w", err)
	}
	return n, nil
}

func natsOptions(cfg NATSConfig) (*server.Options, error) {
	options := &server.Options{MaxPayload: maxPayload, MaxPending: maxPending}
	if cfg.ConfigFile != "" {
		var err error
		if options, err = server.ProcessConfigFile(cfg.ConfigFile); err != nil {
			return nil, fmt.Errorf("devstack: NATS configuration: %w", err)
		}
		options.HTTPPort, options.HTTPSPort, options.ProfPort = 0, 0, 0
		options.Cluster, options.Routes = server.ClusterOpts{}, nil
		options.Gateway, options.LeafNode = server.GatewayOpts{}, server.LeafNodeOpts{}
		options.Websocket, options.MQTT = server.WebsocketOpts{}, server.MQTTOpts{}
		options.PidFile, options.PortsFileDir, options.LogFile = "", "", ""
	}
	options.Host = "127.0.0.1"
	options.Port = cfg.Port
	if cfg.Port == 0 {
		options.Port = server.RANDOM_PORT
	}
	options.JetStream, options.StoreDir = !cfg.NoJetStream, cfg.StoreDir
	options.NoSigs, options.NoLog, options.DisableJetStreamBanner = true, true, true
	return options, nil
}

// URL is where clients connect.
func (n *NATS) URL() string { return n.server.ClientURL() }

// Server is the server itself, for what only tests look at.
func (n *NATS) Server() *server.Server { return n.server }

// Shutdown stops the server, waits for its end and removes the store directory if it was a temporary one. It may be
// repeated.
func (n *NATS) Shutdown() {
	n.shutdown.Do(func() {
		n.server.Shutdown()
		n.server.WaitForShutdown()
		n.removeStore()
	})
}

func (n *NATS) removeStore() {
	if n.storeDir != "" {
		_ = os.RemoveAll(n.storeDir)
	}
}

// natsLog passes the server's log on. A fatal line is kept: it is how the server reports that it could not start.
type natsLog struct {
	to    *slog.Logger
	first atomic.Pointer[string]
}

func (l *natsLog) fatal() error {
	if message := l.first.Load(); message != nil {
		return errors.New(*message)
	}
	return nil
}

// Fatalf implements server.Logger; the process goes on.
func (l *natsLog) Fatalf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	l.first.CompareAndSwap(nil, &message)
	l.Errorf(format, v...)
}

// Errorf implements server.Logger.
func (l *natsLog) Errorf(format string, v ...any) { l.log(slog.LevelError, format, v) }

// Warnf implements server.Logger.
func (l *natsLog) Warnf(format string, v ...any) { l.log(slog.LevelWarn, format, v) }

// Noticef implements server.Logger.
func (l *natsLog) Noticef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }

// Debugf implements server.Logger.
func (l *natsLog) Debugf(format string, v ...any) { l.log(slog.LevelDebug, format, v) }

// Tracef implements server.Logger.
func (l *natsLog) Tracef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }

func (l *natsLog) log(level slog.Level, format string, v []any) {
	l.to.Log(context.Background(), level, fmt.Sprintf(format, v...), "server", "nats")
}
