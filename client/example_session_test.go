package client_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

func ExampleClient_Session() {
	url, stop := exampleStack()
	defer stop()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close(ctx) }()
	sessions := c.Session()

	login, err := sessions.Create(ctx, messages.SessionCreate{UserID: "ada", Data: []byte(`{"cart":["book"]}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(login.Token), "characters of token, told this once")

	opened, err := sessions.GetByToken(ctx, messages.SessionGetByToken{Token: login.Token})
	fmt.Println(opened.Session.UserID, string(opened.Session.Data), err)

	changed, err := sessions.Update(ctx, messages.SessionUpdate{SessionID: opened.Session.SessionID, Data: []byte(`{"theme":"dark"}`)})
	fmt.Println(string(changed.Session.Data), changed.Session.Version, err)

	// After a change of rights the token changes, too. The old one works until the new one has been used, and 30 s from then.
	rotated, err := sessions.Rotate(ctx, messages.SessionRotate{Token: login.Token})
	fmt.Println(rotated.Token != login.Token, err)

	_, err = sessions.Delete(ctx, messages.SessionDelete{SessionID: opened.Session.SessionID})
	fmt.Println(err)
	_, err = sessions.GetByToken(ctx, messages.SessionGetByToken{Token: rotated.Token})
	var failure *messages.Error
	fmt.Println(errors.As(err, &failure), failure.Code)
	// Output:
	// 43 characters of token, told this once
	// ada {"cart":["book"]} <nil>
	// {"cart":["book"],"theme":"dark"} 2 <nil>
	// true <nil>
	// <nil>
	// true not_found
}
