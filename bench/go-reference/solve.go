package main

import (
	"context"
	"maps"
	"os"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
)

// solve builds and pushes directory, tells progress what BuildKit says, and returns the digest.
func solve(
	ctx context.Context, buildkit *client.Client, directory string, wanted *buildConfig,
	progress func(*client.SolveStatus),
) (string, error) {
	files, err := fsutil.NewFS(directory)
	if err != nil {
		return "", err
	}
	attrs := map[string]string{}
	for name, value := range wanted.BuildArgs {
		attrs["build-arg:"+name] = value
	}
	if len(wanted.Platforms) > 0 {
		attrs["platform"] = strings.Join(wanted.Platforms, ",")
	}
	image := map[string]string{"name": wanted.Image}
	if !wanted.SkipPush {
		maps.Copy(image, map[string]string{"push": "true", "registry.insecure": "true"})
	}
	options := client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: attrs,
		LocalMounts:   map[string]fsutil.FS{"context": files, "dockerfile": files},
		Exports:       []client.ExportEntry{{Type: client.ExporterImage, Attrs: image}},
		// A directory is new each time: the name is what lets BuildKit fetch only what has changed.
		SharedKey: repository(wanted.Image),
		Session: []session.Attachable{authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
			AuthConfigProvider: authprovider.LoadAuthConfig(config.LoadDefaultConfigFile(os.Stderr)),
		})},
	}

	statuses := make(chan *client.SolveStatus)
	var digest string
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		response, err := buildkit.Solve(ctx, nil, options, statuses)
		if err == nil {
			digest = response.ExporterResponse[exptypes.ExporterImageDigestKey]
		}
		return err
	})
	group.Go(func() error {
		for status := range statuses {
			progress(status)
		}
		return nil
	})
	return digest, group.Wait()
}

func repository(image string) string {
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		return image[:colon]
	}
	return image
}
