# Images of nodes for OpenStack and VMware: Debian 12 or Ubuntu 24.04 with the Debian package of Fingerpost, and
# nothing started. A machine that is made from it joins its cluster at its first boot (deploy/cloud-init/worker.yaml).
#
#   deploy/systemd/build-deb python3 dist onnx
#   packer init deploy/packer
#   packer build -only='openstack.node' -var package=dist/fingerpost-onnx_1.0_amd64.deb -var source_image=ID \
#     -var flavor=m1.large -var 'networks=["ID"]' deploy/packer
#
# Not tried: no Packer and no cloud have run this file. What was: a strict parser of HCL reads it, a test compares its
# keys with those of the plugins, and `provision`, which does all the work, makes the image that `make test-machines`
# boots (deploy/packer/build-tree).

packer {
  required_version = ">= 1.9.0"
  required_plugins {
    openstack = {
      source  = "github.com/hashicorp/openstack"
      version = "~> 1.1"
    }
    vsphere = {
      source  = "github.com/hashicorp/vsphere"
      version = "~> 1.4"
    }
  }
}

variable "package" {
  type        = string
  description = "Path of fingerpost-KIND_VERSION_ARCH.deb."
  validation {
    condition     = can(regex("fingerpost-(core|xds|onnx|openvino|litert|tensorflow|torch|gpu)_[^/]+[.]deb$", var.package))
    error_message = "The value of package must be the path of a fingerpost-KIND_VERSION_ARCH.deb."
  }
}

variable "further_packages" {
  type        = list(string)
  description = "Debian packages to install too, such as nvidia-driver."
  default     = []
}

variable "image_name" {
  type    = string
  default = "fingerpost-node"
}

variable "user" {
  type        = string
  description = "User of the source image that may use sudo: debian, ubuntu."
  default     = "debian"
}

# OpenStack: the rest is read from the usual variables, OS_CLOUD or OS_AUTH_URL and so on.
variable "source_image" {
  type        = string
  description = "Id of an image of Debian 12 or Ubuntu 24.04 in Glance."
  default     = ""
}

variable "flavor" {
  type    = string
  default = ""
}

variable "networks" {
  type        = list(string)
  description = "Ids of networks of the machine that the image is made on."
  default     = []
}

# VMware.
variable "vcenter" {
  type        = string
  description = "Host name of the vCenter."
  default     = ""
}

variable "vcenter_user" {
  type    = string
  default = ""
}

variable "vcenter_password" {
  type      = string
  default   = ""
  sensitive = true
}

variable "template" {
  type        = string
  description = "Name of a template of Debian 12 or Ubuntu 24.04 with cloud-init."
  default     = ""
}

variable "cluster" {
  type    = string
  default = ""
}

variable "datastore" {
  type    = string
  default = ""
}

source "openstack" "node" {
  image_name   = var.image_name
  source_image = var.source_image
  flavor       = var.flavor
  networks     = var.networks
  ssh_username = var.user
}

source "vsphere-clone" "node" {
  vcenter_server      = var.vcenter
  username            = var.vcenter_user
  password            = var.vcenter_password
  template            = var.template
  cluster             = var.cluster
  datastore           = var.datastore
  vm_name             = var.image_name
  ssh_username        = var.user
  convert_to_template = true
}

build {
  sources = ["source.openstack.node", "source.vsphere-clone.node"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/${basename(var.package)}"
  }

  provisioner "shell" {
    script          = "${path.root}/provision"
    execute_command = "sudo sh '{{ .Path }}' '/tmp/${basename(var.package)}' ${join(" ", var.further_packages)}"
  }
}
