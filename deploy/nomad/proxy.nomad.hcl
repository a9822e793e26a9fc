# A proxy of Fingerpost on each machine, as a Nomad system job, so that clients find one at localhost.
#
#   nomad job run -var registry=consul://127.0.0.1:8500 deploy/nomad/proxy.nomad.hcl
#
# What was tried: a strict parser of HCL reads this file, and a test holds that its blocks, keys and variables are
# those of Nomad's documentation (tests/deploy/test_nomad.py); the image and its arguments run on Docker's engine
# with the same limits (`make test-images`). What was not tried: no Nomad agent has run this job.

variable "image" {
  type        = string
  default     = "fingerpost:core"
  description = "The image; docs/containers.md says how to build it. fingerpost:xds for xds_port > 0."
}

variable "registry" {
  type        = string
  default     = "consul://127.0.0.1:8500"
  description = "The registry; with host networking the machine's own Consul agent."
}

variable "port" {
  type        = number
  default     = 12480
  description = "The proxies' port on every machine."

  validation {
    condition     = var.port >= 1024 && var.port <= 65535
    error_message = "The variable port must be from 1024 to 65535: the proxy does not run as root."
  }
}

variable "xds_port" {
  type        = number
  default     = 0
  description = "The port on every machine where clients of gRPC are told of the workers (xDS), such as 12482; 0 is none."

  validation {
    condition     = var.xds_port == 0 || (var.xds_port >= 1024 && var.xds_port <= 65535)
    error_message = "The variable xds_port must be 0, or from 1024 to 65535: the proxy does not run as root."
  }
}

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Nomad's datacenters in which proxies run."
}

job "fingerpost-proxy" {
  datacenters = var.datacenters
  type        = "system"

  # One machine after the other.
  update {
    max_parallel = 1
    stagger      = "15s"
  }

  group "proxy" {
    # Nomad takes the proxy out of Consul, and waits until clients have seen that, before it stops it.
    shutdown_delay = "5s"

    network {
      mode = "host"

      port "http" {
        static = var.port
      }

      dynamic "port" {
        for_each = var.xds_port == 0 ? [] : [var.xds_port]
        labels   = ["xds"]

        content {
          static = port.value
        }
      }
    }

    service {
      name     = "fingerpost-proxy"
      provider = "consul"
      port     = "http"

      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "proxy" {
      driver = "docker"

      kill_signal  = "SIGTERM"
      kill_timeout = "20s"

      config {
        image           = var.image
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 256
        args = concat([
          "proxy",
          "--registry", var.registry,
          "--host", "${NOMAD_IP_http}",
          "--port", "${NOMAD_PORT_http}",
        ], var.xds_port == 0 ? [] : ["--xds-port", tostring(var.xds_port)])
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
