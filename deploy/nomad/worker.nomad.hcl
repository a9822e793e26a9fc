# Workers of Fingerpost as a Nomad job: one for each place of `count`, with Docker, on CPUs or on a GPU.
#
#   nomad job run -var models=/srv/models -var registry=consul://127.0.0.1:8500 deploy/nomad/worker.nomad.hcl
#
# What was tried: a strict parser of HCL reads this file, and a test holds that its blocks, keys and variables are
# those of Nomad's documentation (tests/deploy/test_nomad.py); the image and its arguments run on Docker's engine
# with the same limits (`make test-images`). What was not tried: no Nomad agent has run this job, and no GPU.

variable "image" {
  type        = string
  default     = "fingerpost:onnx"
  description = "The image; docs/containers.md says how to build it. fingerpost:gpu for gpus > 0."
}

variable "models" {
  type        = string
  description = "Folder on each machine with the models, as NAME/VERSION/."

  validation {
    condition     = substr(var.models, 0, 1) == "/"
    error_message = "The variable models must be an absolute path."
  }
}

variable "registry" {
  type        = string
  default     = "consul://127.0.0.1:8500"
  description = "The registry; with host networking the machine's own Consul agent."
}

variable "count" {
  type        = number
  default     = 2
  description = "Workers in all, spread over the machines."

  validation {
    condition     = var.count >= 1 && floor(var.count) == var.count
    error_message = "The variable count must be a whole number from 1 on."
  }
}

variable "gpus" {
  type        = number
  default     = 0
  description = "NVIDIA GPUs of each worker, 0 or 1; Nomad's plugin nomad-device-nvidia finds them."

  validation {
    condition     = var.gpus == 0 || var.gpus == 1
    error_message = "The variable gpus must be 0 or 1: run one worker for each GPU."
  }
}

variable "memory" {
  type        = number
  default     = 2048
  description = "MB of memory of each worker: of the framework, the model, and images in flight."

  validation {
    condition     = var.memory >= 512
    error_message = "The variable memory must be MB, from 512 on."
  }
}

variable "grpc" {
  type        = bool
  default     = false
  description = "Whether workers serve gRPC on a further port, which Nomad picks; docs/grpc.md."
}

variable "options" {
  type        = list(string)
  default     = []
  description = "Further options of fingerpost worker, such as [\"--max-batch\", \"64\"] or [\"--front-ends\", \"4\"]."
}

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Nomad's datacenters in which workers may run."
}

job "fingerpost-worker" {
  datacenters = var.datacenters
  type        = "service"

  # One after the other, each only once its predecessor answers as ready.
  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "5s"
    healthy_deadline  = "5m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "worker" {
    count = var.count

    network {
      mode = "host"
      port "http" {}
      port "grpc" {}
    }

    spread {
      attribute = "${node.unique.id}"
    }

    # Fingerpost registers itself with Consul, with its models and their versions. This service is for Nomad
    # alone: it holds back a rollout whose new worker is not ready.
    service {
      name     = "fingerpost-worker"
      provider = "nomad"
      port     = "http"

      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "worker" {
      driver = "docker"

      # The worker drains by itself at SIGTERM: it leaves Consul, takes requests for 2 s more, and finishes what is
      # in flight. So there is no shutdown_delay, and kill_timeout covers the longest request. Nomad cuts it to the
      # client's max_kill_timeout, 30 s by default: raise that where requests take longer.
      kill_signal  = "SIGTERM"
      kill_timeout = "60s"

      config {
        image           = var.image
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 4096
        args = concat([
          "worker",
          "--models", "/models",
          "--registry", var.registry,
          "--host", "${NOMAD_IP_http}",
          "--port", "${NOMAD_PORT_http}",
        ], var.grpc ? ["--grpc-port", "${NOMAD_PORT_grpc}"] : [], var.options)

        mount {
          type   = "tmpfs" # TensorFlow is not imported without
          target = "/tmp"
          tmpfs_options {
            size = 1073741824 # bytes; they count as memory of the task
          }
        }
        mount {
          type     = "bind"
          source   = var.models
          target   = "/models"
          readonly = true
        }
      }

      resources {
        cpu    = 2000
        memory = var.memory

        dynamic "device" {
          for_each = var.gpus == 0 ? [] : [var.gpus]
          labels   = ["nvidia/gpu"]

          content {
            count = device.value
          }
        }
      }
    }
  }
}
